// The tokenizer that belongs to a model, wherever the model keeps it.
#pragma once

#include "base/status.h"
#include "formats/hf_dir.h"
#include "text/tokenizer.h"

namespace edgewise::formats {
class GgufFile;
}

namespace edgewise::infer {

// tokenizer.json (and tokenizer_config.json) of a directory, or the vocabulary of a GGUF file.
Result<text::Tokenizer> LoadTokenizer(const formats::ModelLocation& location);

// The tokenizer.ggml.* metadata as plain data. Error: names file and key.
Result<text::GgufVocab> ReadGgufVocab(const formats::GgufFile& file);

}  // namespace edgewise::infer
