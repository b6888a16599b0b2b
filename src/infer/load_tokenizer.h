// The tokenizer and the chat template that belong to a model, wherever the model keeps them.
#pragma once

#include "base/status.h"
#include "formats/hf_dir.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace edgewise::formats {
class GgufFile;
}

namespace edgewise::infer {

// tokenizer.json (and tokenizer_config.json) of a directory, or the vocabulary of a GGUF file.
Result<text::Tokenizer> LoadTokenizer(const formats::ModelLocation& location);

// The model's chat template: that of the directory, or tokenizer.chat_template of a GGUF file.
// ChatML (with a warning in the result) when the model has none.
Result<text::ChatTemplate> LoadChatTemplate(const formats::ModelLocation& location,
                                            const text::Tokenizer& tokenizer);

// The tokenizer.ggml.* metadata as plain data. Error: names file and key.
Result<text::GgufVocab> ReadGgufVocab(const formats::GgufFile& file);

}  // namespace edgewise::infer
