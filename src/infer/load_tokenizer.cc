#include "infer/load_tokenizer.h"

#include <limits>
#include <string>

#include "formats/gguf.h"

namespace edgewise::infer {
namespace {

using formats::GgufFile;

Status ReadId(const GgufFile& file, const char* key, std::optional<uint32_t>* out) {
  if (!file.Has(key)) return Status::Ok();
  EW_ASSIGN(const int64_t id, file.Int(key));
  if (id < 0 || id > std::numeric_limits<int32_t>::max()) {
    return BadInput(file.path() + ": " + key + " is out of range");
  }
  *out = static_cast<uint32_t>(id);
  return Status::Ok();
}

Status ReadFlag(const GgufFile& file, const char* key, std::optional<bool>* out) {
  if (!file.Has(key)) return Status::Ok();
  EW_ASSIGN(const bool value, file.Bool(key));
  *out = value;
  return Status::Ok();
}

}  // namespace

Result<text::GgufVocab> ReadGgufVocab(const GgufFile& file) {
  text::GgufVocab vocab;
  EW_ASSIGN(vocab.model, file.String("tokenizer.ggml.model"));
  EW_ASSIGN(vocab.pre, file.StringOr("tokenizer.ggml.pre", ""));
  EW_ASSIGN(vocab.tokens, file.Strings("tokenizer.ggml.tokens"));
  if (file.Has("tokenizer.ggml.scores")) {
    EW_ASSIGN(vocab.scores, file.Floats("tokenizer.ggml.scores"));
  }
  if (file.Has("tokenizer.ggml.merges")) {
    EW_ASSIGN(vocab.merges, file.Strings("tokenizer.ggml.merges"));
  }
  if (file.Has("tokenizer.ggml.token_type")) {
    EW_ASSIGN(const std::vector<int64_t> types, file.Ints("tokenizer.ggml.token_type"));
    for (int64_t type : types) {
      // Anything outside the enumeration is left for the tokenizer to refuse.
      vocab.token_types.push_back(type >= 0 && type <= 1000 ? static_cast<int32_t>(type) : -1);
    }
  }
  EW_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.bos_token_id", &vocab.bos_id));
  EW_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.eos_token_id", &vocab.eos_id));
  EW_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.eot_token_id", &vocab.eot_id));
  EW_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.unknown_token_id", &vocab.unk_id));
  EW_RETURN_IF_ERROR(ReadId(file, "tokenizer.ggml.padding_token_id", &vocab.pad_id));
  EW_RETURN_IF_ERROR(ReadFlag(file, "tokenizer.ggml.add_bos_token", &vocab.add_bos));
  EW_RETURN_IF_ERROR(ReadFlag(file, "tokenizer.ggml.add_eos_token", &vocab.add_eos));
  EW_RETURN_IF_ERROR(ReadFlag(file, "tokenizer.ggml.add_space_prefix", &vocab.add_space_prefix));
  return vocab;
}

Result<text::Tokenizer> LoadTokenizer(const formats::ModelLocation& location) {
  if (location.kind == formats::ModelLocation::Kind::kHfDirectory) {
    return text::Tokenizer::FromFile(location.path);
  }
  EW_ASSIGN(const std::shared_ptr<const GgufFile> file, GgufFile::Open(location.path));
  EW_ASSIGN(text::GgufVocab vocab, ReadGgufVocab(*file));
  return text::Tokenizer::FromGguf(std::move(vocab)).WithContext(location.path);
}

Result<text::ChatTemplate> LoadChatTemplate(const formats::ModelLocation& location,
                                            const text::Tokenizer& tokenizer) {
  if (location.kind == formats::ModelLocation::Kind::kHfDirectory) {
    EW_ASSIGN(const text::ChatTemplateFiles files, text::ReadChatTemplateFiles(location.path));
    return text::ChatTemplate::Load(files).WithContext(location.path);
  }
  EW_ASSIGN(const std::shared_ptr<const GgufFile> file, GgufFile::Open(location.path));
  EW_ASSIGN(const std::string source, file->StringOr("tokenizer.chat_template", ""));
  if (source.empty()) return text::ChatTemplate::Load({});
  const auto piece = [&](std::optional<int32_t> id) {
    return id ? std::string(tokenizer.IdToToken(*id).value_or("")) : "";
  };
  return text::ChatTemplate::FromString(source, piece(tokenizer.bos_id()),
                                        piece(tokenizer.eos_id()))
      .WithContext(location.path);
}

}  // namespace edgewise::infer
