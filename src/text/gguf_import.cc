#include "text/gguf_import.h"

#include <fmt/format.h>

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/gguf_splitting.h"

namespace edgewise::text {
namespace {

using Json = nlohmann::json;

std::string TypeName(const Json& object) {
  return object.is_object() ? object.value("type", std::string()) : std::string();
}

// The member as an array of steps: of a Sequence, or the one step itself.
std::vector<Json> Steps(const Json& value, const char* key) {
  if (value.is_null()) return {};
  if (TypeName(value) == "Sequence" && value.contains(key) && value[key].is_array()) {
    return value[key].get<std::vector<Json>>();
  }
  return {value};
}

// The expressions that split text into words, as GgufSplitting has them.
Result<std::vector<std::string>> SplitExpressions(const Json& pre_tokenizer) {
  std::vector<std::string> expressions;
  for (const Json& step : Steps(pre_tokenizer, "pretokenizers")) {
    const std::string type = TypeName(step);
    if (type == "Digits" && step.value("individual_digits", false)) {
      expressions.emplace_back(R"(\p{N})");
    } else if (type == "Split" && step.value("behavior", "") == "Isolated" &&
               !step.value("invert", false) && step.contains("pattern") &&
               step["pattern"].is_object() && step["pattern"].contains("Regex") &&
               step["pattern"]["Regex"].is_string()) {
      expressions.push_back(step["pattern"]["Regex"].get<std::string>());
    } else if (type == "ByteLevel" && !step.value("add_prefix_space", true)) {
      if (!step.value("use_regex", true)) continue;
      EW_ASSIGN(const GgufSplitting gpt2, GgufSplittingOf("gpt-2"));
      expressions.push_back(gpt2.expressions[0]);
    } else {
      return Unsupported(
          fmt::format("tokenizer.json splits text by '{}', which a GGUF file cannot say", type));
    }
  }
  return expressions;
}

Result<std::string> NameOfSplitting(const std::vector<std::string>& expressions,
                                    bool ignore_merges) {
  for (const char* name : {"gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "tekken", "gpt-4o"}) {
    EW_ASSIGN(const GgufSplitting known, GgufSplittingOf(name));
    if (known.expressions == expressions && known.ignore_merges == ignore_merges) {
      return std::string(name);
    }
  }
  return Unsupported("tokenizer.json splits text in a way that has no name in GGUF files");
}

// "a b", from either form in which tokenizer.json has merges.
std::vector<std::string> MergesOf(const Json& model) {
  std::vector<std::string> merges;
  for (const Json& merge : model.value("merges", Json::array())) {
    if (merge.is_string()) {
      merges.push_back(merge.get<std::string>());
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      merges.push_back(merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    }
  }
  return merges;
}

void SetType(GgufVocab& v, size_t id, GgufTokenType type) {
  v.token_types[id] = static_cast<int32_t>(type);
}

Status ReadTokens(const Json& json, int64_t vocab, GgufVocab* v) {
  const auto count = static_cast<size_t>(vocab);
  v->tokens.assign(count, "");
  v->token_types.assign(count, static_cast<int32_t>(GgufTokenType::kUnused));
  const auto put = [&](const std::string& text, int64_t id, GgufTokenType type) {
    if (id < 0 || id >= vocab) {
      return BadInput(fmt::format("tokenizer.json has a token {}, the model {} rows", id, vocab));
    }
    v->tokens[static_cast<size_t>(id)] = text;
    SetType(*v, static_cast<size_t>(id), type);
    return Status::Ok();
  };
  for (const auto& [text, id] : json["model"]["vocab"].items()) {
    if (!id.is_number_integer()) return BadInput("tokenizer.json: an id is not a number");
    EW_RETURN_IF_ERROR(put(text, id.get<int64_t>(), GgufTokenType::kNormal));
  }
  for (const Json& added : json.value("added_tokens", Json::array())) {
    const GgufTokenType type =
        added.value("special", false) ? GgufTokenType::kControl : GgufTokenType::kUserDefined;
    EW_RETURN_IF_ERROR(put(added.value("content", ""), added.value("id", int64_t{-1}), type));
  }
  for (size_t id = 0; id < count; ++id) {
    if (v->tokens[id].empty()) v->tokens[id] = fmt::format("[PAD{}]", id);
  }
  return Status::Ok();
}

// llama.cpp joins the neighbours whose token has the best score first.
void ScoresFromMerges(const std::vector<std::string>& merges, GgufVocab* v) {
  std::unordered_map<std::string, float> score;
  for (size_t i = 0; i < merges.size(); ++i) {
    std::string joined = merges[i];
    joined.erase(joined.find(' '), 1);
    score.emplace(std::move(joined), -static_cast<float>(i + 1));
  }
  for (size_t id = 0; id < v->tokens.size(); ++id) {
    const std::string& token = v->tokens[id];
    if (token.size() == 6 && token.starts_with("<0x") && token.back() == '>') {
      SetType(*v, id, GgufTokenType::kByte);
    }
    const auto found = score.find(token);
    v->scores.push_back(found != score.end() ? found->second
                                             : -static_cast<float>(merges.size() + 1));
  }
}

// tokenizer_config.json names tokens by text, or by an object with it.
std::optional<uint32_t> NamedToken(const Json& config, const char* key, const GgufVocab& v) {
  if (!config.is_object() || !config.contains(key)) return std::nullopt;
  const Json& named = config[key];
  const std::string text = named.is_string()   ? named.get<std::string>()
                           : named.is_object() ? named.value("content", std::string())
                                               : std::string();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    if (!text.empty() && v.tokens[id] == text) return static_cast<uint32_t>(id);
  }
  return std::nullopt;
}

// Whether every text begins with this token.
bool Prepends(const Json& post_processor, const std::string& token) {
  for (const Json& step : Steps(post_processor, "processors")) {
    if (TypeName(step) != "TemplateProcessing" || !step.contains("single")) continue;
    const Json& first =
        step["single"].is_array() && !step["single"].empty() ? step["single"][0] : Json();
    if (first.is_object() && first.contains("SpecialToken") &&
        first["SpecialToken"].value("id", std::string()) == token) {
      return true;
    }
  }
  return false;
}

// SentencePiece models put a space before the text and write spaces as a marker.
Status CheckSentencePiece(const Json& json, GgufVocab* v) {
  bool prefix = false;
  for (const Json& step : Steps(json.value("normalizer", Json()), "normalizers")) {
    const std::string type = TypeName(step);
    if (type == "Prepend") {
      prefix = true;
    } else if (type != "Replace") {
      return Unsupported(
          fmt::format("tokenizer.json normalises by '{}', which a GGUF file cannot say", type));
    }
  }
  for (const Json& step : Steps(json.value("pre_tokenizer", Json()), "pretokenizers")) {
    if (TypeName(step) != "Metaspace") {
      return Unsupported(fmt::format(
          "tokenizer.json splits text by '{}', which a GGUF file cannot say", TypeName(step)));
    }
    prefix = step.value("prepend_scheme", std::string("always")) != "never";
  }
  v->add_space_prefix = prefix;
  return Status::Ok();
}

}  // namespace

Result<GgufVocab> GgufVocabFromTokenizerJson(const std::string& tokenizer_json,
                                             const std::string& tokenizer_config, int64_t vocab) {
  const Json json = Json::parse(tokenizer_json, nullptr, /*allow_exceptions=*/false);
  const Json config = Json::parse(tokenizer_config, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("model") || !json["model"].is_object() ||
      !json["model"].value("vocab", Json()).is_object()) {
    return Unsupported("tokenizer.json holds no BPE model: GGUF files are written for those");
  }
  const Json& model = json["model"];
  if (model.value("type", std::string("BPE")) != "BPE") {
    return Unsupported(fmt::format("tokenizer.json holds a {} model: GGUF files are written of BPE",
                                   model.value("type", std::string())));
  }
  GgufVocab v;
  EW_RETURN_IF_ERROR(ReadTokens(json, vocab, &v));
  const std::vector<std::string> merges = MergesOf(model);
  if (model.value("byte_fallback", false)) {
    v.model = "llama";
    v.pre = "default";
    EW_RETURN_IF_ERROR(CheckSentencePiece(json, &v));
    ScoresFromMerges(merges, &v);
  } else {
    v.model = "gpt2";
    v.merges = merges;
    const std::string normalizer = TypeName(json.value("normalizer", Json()));
    // Text that is not in composed form is rare, and llama.cpp's own converter accepts it.
    if (!normalizer.empty() && normalizer != "NFC") {
      return Unsupported(fmt::format(
          "tokenizer.json normalises by '{}', which a GGUF file cannot say", normalizer));
    }
    EW_ASSIGN(const auto expressions, SplitExpressions(json.value("pre_tokenizer", Json())));
    EW_ASSIGN(v.pre, NameOfSplitting(expressions, model.value("ignore_merges", false)));
  }
  v.bos_id = NamedToken(config, "bos_token", v);
  v.eos_id = NamedToken(config, "eos_token", v);
  v.unk_id = NamedToken(config, "unk_token", v);
  if (v.unk_id) SetType(v, *v.unk_id, GgufTokenType::kUnknown);
  v.pad_id = NamedToken(config, "pad_token", v);
  v.add_bos = v.bos_id && Prepends(json.value("post_processor", Json()), v.tokens[*v.bos_id]);
  v.add_eos = false;
  return v;
}

}  // namespace edgewise::text
