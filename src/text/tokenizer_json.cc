// Tokenizer::FromJson.
#include <fmt/format.h>

#include <utility>

#include "io/json.h"
#include "text/bpe.h"
#include "text/json_fields.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"
#include "text/unigram.h"

namespace edgewise::text {
namespace {

constexpr size_t kMaxFileBytes = size_t{64} << 20;
constexpr size_t kMaxJsonDepth = 64;

Status BadMerge(size_t index) {
  return BadInput(fmt::format("model.merges[{}] is neither \"a b\" nor [\"a\", \"b\"]", index));
}

Result<BpeModel::Merges> ParseMerges(const JsonObject& json) {
  EW_ASSIGN(const dom::array array, json.Array("merges"));
  BpeModel::Merges merges;
  merges.reserve(array.size());
  size_t index = 0;
  for (dom::element element : array) {
    const size_t at = index++;
    std::string_view line;
    if (element.get(line) == simdjson::SUCCESS) {
      if (line.substr(0, 8) == "#version") continue;
      const size_t space = line.find(' ');
      if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
        return BadMerge(at);
      }
      merges.emplace_back(line.substr(0, space), line.substr(space + 1));
      continue;
    }
    dom::array pair;
    std::string_view left;
    std::string_view right;
    if (element.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
        pair.at(0).get(left) != simdjson::SUCCESS || pair.at(1).get(right) != simdjson::SUCCESS) {
      return BadMerge(at);
    }
    merges.emplace_back(left, right);
  }
  return merges;
}

Result<std::unique_ptr<const TokenModel>> ParseBpe(const JsonObject& json, bool byte_level) {
  EW_ASSIGN(const JsonObject pieces, json.Object("vocab"));
  Vocab vocab;
  for (const dom::key_value_pair member : pieces.object) {
    int64_t id = 0;
    if (member.value.get(id) != simdjson::SUCCESS) {
      return BadInput(fmt::format("model.vocab: the id of '{}' is not an integer", member.key));
    }
    EW_RETURN_IF_ERROR(vocab.Add(member.key, id).WithContext("model.vocab"));
  }
  EW_ASSIGN(const BpeModel::Merges merges, ParseMerges(json));
  BpeConfig config;
  config.byte_level = byte_level;
  EW_ASSIGN(const auto unk, json.OptionalString("unk_token"));
  EW_ASSIGN(const auto prefix, json.OptionalString("continuing_subword_prefix"));
  EW_ASSIGN(const auto suffix, json.OptionalString("end_of_word_suffix"));
  if (unk) config.unk_token = std::string(*unk);
  config.continuing_subword_prefix = prefix.value_or("");
  config.end_of_word_suffix = suffix.value_or("");
  EW_ASSIGN(config.fuse_unk, json.BoolOr("fuse_unk", false));
  EW_ASSIGN(config.byte_fallback, json.BoolOr("byte_fallback", false));
  EW_ASSIGN(config.ignore_merges, json.BoolOr("ignore_merges", false));
  EW_ASSIGN(std::unique_ptr<const BpeModel> model,
            BpeModel::Make(std::move(vocab), merges, std::move(config)).WithContext("model"));
  return std::unique_ptr<const TokenModel>(std::move(model));
}

Result<std::unique_ptr<const TokenModel>> ParseUnigram(const JsonObject& json) {
  EW_ASSIGN(const dom::array array, json.Array("vocab"));
  Vocab vocab;
  std::vector<double> scores;
  int64_t id = 0;
  for (dom::element element : array) {
    dom::array pair;
    std::string_view piece;
    double score = 0;
    if (element.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
        pair.at(0).get(piece) != simdjson::SUCCESS || pair.at(1).get(score) != simdjson::SUCCESS) {
      return BadInput(fmt::format("model.vocab[{}] is not [piece, score]", id));
    }
    EW_RETURN_IF_ERROR(vocab.AddSynonym(piece, id++).WithContext("model.vocab"));
    scores.push_back(score);
  }
  std::optional<int32_t> unk;
  if (json.Find("unk_id")) {
    EW_ASSIGN(const int64_t unk_id, json.Int("unk_id"));
    if (unk_id < 0 || unk_id >= id) {
      return BadInput(fmt::format("model.unk_id {} is outside of the vocabulary", unk_id));
    }
    unk = static_cast<int32_t>(unk_id);
  }
  EW_ASSIGN(const bool byte_fallback, json.BoolOr("byte_fallback", false));
  return UnigramModel::Make(std::move(vocab), std::move(scores), unk, byte_fallback)
      .WithContext("model");
}

Status ParseModel(const JsonObject& root, Tokenizer::Impl* impl) {
  EW_ASSIGN(const JsonObject json, root.Object("model"));
  // Old files have no type; only BPE has merges.
  EW_ASSIGN(const auto type, json.OptionalString("type"));
  if (type == "Unigram") {
    MapBytesToChars(&impl->pre_tokenizer);
    EW_ASSIGN(impl->model, ParseUnigram(json));
    return Status::Ok();
  }
  if (type != "BPE" && (type || !json.Find("merges"))) {
    return Unsupported(fmt::format("model of type '{}' is not known here: BPE and Unigram are",
                                   type.value_or("none")));
  }
  EW_ASSIGN(impl->model, ParseBpe(json, impl->pre_tokenizer.ends_in_byte_level));
  EW_ASSIGN(const auto unk, json.OptionalString("unk_token"));
  if (unk) impl->unk = impl->model->vocab().Find(*unk);
  return Status::Ok();
}

// Ids as the library gives them: the one in the vocabulary, or the next free one; what the file
// says is what the library wrote, which is the same.
Status ParseAddedTokens(const JsonObject& root, Tokenizer::Impl* impl) {
  if (!root.Find("added_tokens")) return Status::Ok();
  EW_ASSIGN(const dom::array array, root.Array("added_tokens"));
  const Vocab& vocab = impl->model->vocab();
  auto next_id = static_cast<int64_t>(vocab.size());
  size_t index = 0;
  for (dom::element element : array) {
    EW_ASSIGN(const JsonObject json,
              JsonObject::From(element, fmt::format("added_tokens[{}]", index++)));
    AddedToken token;
    EW_ASSIGN(const std::string_view content, json.String("content"));
    token.content = content;
    EW_ASSIGN(token.special, json.BoolOr("special", false));
    EW_ASSIGN(token.normalized, json.BoolOr("normalized", !token.special));
    EW_ASSIGN(token.single_word, json.BoolOr("single_word", false));
    EW_ASSIGN(token.lstrip, json.BoolOr("lstrip", false));
    EW_ASSIGN(token.rstrip, json.BoolOr("rstrip", false));
    if (content.empty()) continue;
    const bool known = impl->added_by_content.contains(token.content);
    const std::optional<int32_t> in_vocab = vocab.Find(content);
    const int64_t id = known || in_vocab ? in_vocab.value_or(0) : next_id++;
    if (id >= kMaxVocab) return BadInput(fmt::format("{}: too many tokens", json.where));
    token.id = static_cast<int32_t>(id);
    impl->AddToken(std::move(token));
  }
  return Status::Ok();
}

Result<std::vector<int32_t>> SpecialTokenIds(const JsonObject& special_tokens,
                                             std::string_view name) {
  EW_ASSIGN(const JsonObject token, special_tokens.Object(name));
  EW_ASSIGN(const dom::array ids, token.Array("ids"));
  std::vector<int32_t> out;
  for (dom::element element : ids) {
    int64_t id = 0;
    if (element.get(id) != simdjson::SUCCESS || id < 0 || id >= kMaxVocab) {
      return BadInput(fmt::format("{} is not a list of ids", token.Path("ids")));
    }
    out.push_back(static_cast<int32_t>(id));
  }
  return out;
}

// What a template puts around one sequence goes around what earlier processors put there.
Status ParseTemplate(const JsonObject& json, Tokenizer::Impl* impl) {
  EW_ASSIGN(const dom::array pieces, json.Array("single"));
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  int sequences = 0;
  for (dom::element element : pieces) {
    EW_ASSIGN(const JsonObject piece, JsonObject::From(element, json.Path("single")));
    if (piece.Find("Sequence")) {
      ++sequences;
      continue;
    }
    EW_ASSIGN(const JsonObject special, piece.Object("SpecialToken"));
    EW_ASSIGN(const std::string_view name, special.String("id"));
    EW_ASSIGN(const JsonObject table, json.Object("special_tokens"));
    EW_ASSIGN(const std::vector<int32_t> ids, SpecialTokenIds(table, name));
    std::vector<int32_t>& side = sequences == 0 ? before : after;
    side.insert(side.end(), ids.begin(), ids.end());
  }
  if (sequences != 1) {
    return Unsupported(
        fmt::format("{} has the text {} times, not once", json.Path("single"), sequences));
  }
  impl->prefix.insert(impl->prefix.begin(), before.begin(), before.end());
  impl->suffix.insert(impl->suffix.end(), after.begin(), after.end());
  return Status::Ok();
}

// ["</s>", 2]
Result<int32_t> NamedId(const JsonObject& json, std::string_view key) {
  EW_ASSIGN(const dom::array pair, json.Array(key));
  int64_t id = -1;
  if (pair.size() != 2 || pair.at(1).get(id) != simdjson::SUCCESS || id < 0 || id >= kMaxVocab) {
    return BadInput(fmt::format("{} is not [token, id]", json.Path(key)));
  }
  return static_cast<int32_t>(id);
}

Status ParsePostProcessor(const JsonObject& json, int depth, Tokenizer::Impl* impl) {
  EW_ASSIGN(const std::string_view type, json.String("type"));
  if (type == "ByteLevel") return Status::Ok();  // concerns offsets only
  if (type == "TemplateProcessing") return ParseTemplate(json, impl);
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    EW_ASSIGN(const int32_t cls, NamedId(json, "cls"));
    EW_ASSIGN(const int32_t sep, NamedId(json, "sep"));
    impl->prefix.insert(impl->prefix.begin(), cls);
    impl->suffix.push_back(sep);
    return Status::Ok();
  }
  if (type != "Sequence" || depth > 4) {
    return Unsupported(
        fmt::format("{}: post-processor of type '{}' is not known here", json.where, type));
  }
  EW_ASSIGN(const dom::array parts, json.Array("processors"));
  size_t index = 0;
  for (dom::element part : parts) {
    EW_ASSIGN(const JsonObject step,
              JsonObject::From(part, fmt::format("{}.processors[{}]", json.where, index++)));
    EW_RETURN_IF_ERROR(ParsePostProcessor(step, depth + 1, impl));
  }
  return Status::Ok();
}

// bos_token and its like: a string or an object with the member content.
Status ParseConfig(std::string_view text, const Tokenizer& tokenizer, Tokenizer::Impl* impl,
                   std::vector<int32_t>* also_control) {
  if (text.empty()) return Status::Ok();
  EW_ASSIGN(const Json config, ParseJson(text).WithContext("tokenizer_config.json"));
  if (!config.is_object()) return BadInput("tokenizer_config.json is not an object");
  auto id_of = [&](const Json& value) -> std::optional<int32_t> {
    const Json* content = &value;
    if (value.is_object() && value.contains("content")) content = &value["content"];
    if (!content->is_string()) return std::nullopt;
    return tokenizer.TokenToId(content->get_ref<const std::string&>());
  };
  auto named = [&](const char* key) -> std::optional<int32_t> {
    return config.contains(key) ? id_of(config[key]) : std::nullopt;
  };
  impl->bos = named("bos_token");
  impl->eos = named("eos_token");
  impl->pad = named("pad_token");
  if (const std::optional<int32_t> unk = named("unk_token")) impl->unk = unk;
  for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
    if (!config.contains(key) || !config[key].is_array()) continue;
    for (const Json& value : config[key]) {
      if (const std::optional<int32_t> id = id_of(value)) also_control->push_back(*id);
    }
  }
  return Status::Ok();
}

}  // namespace

Result<Tokenizer> Tokenizer::FromJson(std::string_view tokenizer_json,
                                      std::string_view tokenizer_config_json) {
  if (tokenizer_json.size() > kMaxFileBytes) {
    return BadInput(fmt::format("tokenizer.json of {} bytes: the limit is {}",
                                tokenizer_json.size(), kMaxFileBytes));
  }
  dom::parser parser;
  dom::element document;
  simdjson::error_code error = parser.allocate(tokenizer_json.size(), kMaxJsonDepth);
  if (error == simdjson::SUCCESS) {
    error = parser.parse(tokenizer_json.data(), tokenizer_json.size(), /*realloc_if_needed=*/true)
                .get(document);
  }
  if (error != simdjson::SUCCESS) {
    return BadInput(
        fmt::format("tokenizer.json is not valid JSON: {}", simdjson::error_message(error)));
  }
  EW_ASSIGN(const JsonObject root, JsonObject::From(document, "tokenizer.json"));

  auto impl = std::make_shared<Impl>();
  auto component = [&](std::string_view key) -> Result<JsonObject> {
    return JsonObject::From(*root.Find(key), std::string(key));
  };
  if (root.Find("normalizer")) {
    EW_ASSIGN(const JsonObject json, component("normalizer"));
    EW_RETURN_IF_ERROR(ParseNormalizer(json, &impl->normalizer));
  }
  if (root.Find("pre_tokenizer")) {
    EW_ASSIGN(const JsonObject json, component("pre_tokenizer"));
    EW_RETURN_IF_ERROR(ParsePreTokenizer(json, &impl->pre_tokenizer));
  }
  EW_RETURN_IF_ERROR(ParseModel(root, impl.get()));
  EW_RETURN_IF_ERROR(ParseAddedTokens(root, impl.get()));
  if (root.Find("post_processor")) {
    EW_ASSIGN(const JsonObject json, component("post_processor"));
    EW_RETURN_IF_ERROR(ParsePostProcessor(json, 0, impl.get()));
  }
  impl->has_decoder = root.Find("decoder").has_value();
  if (impl->has_decoder) {
    EW_ASSIGN(const JsonObject json, component("decoder"));
    EW_RETURN_IF_ERROR(ParseDecoder(json, &impl->decoder));
  }
  std::vector<int32_t> also_control;
  EW_RETURN_IF_ERROR(
      ParseConfig(tokenizer_config_json, Tokenizer(impl), impl.get(), &also_control));
  EW_RETURN_IF_ERROR(impl->Finish(also_control));
  return Tokenizer(std::move(impl));
}

}  // namespace edgewise::text
