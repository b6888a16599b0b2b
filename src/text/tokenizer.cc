#include "text/tokenizer.h"

#include <utility>

#include "io/env.h"
#include "text/tokenizer_impl.h"
#include "text/unicode.h"

namespace edgewise::text {

Tokenizer::Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::FromFile(const std::string& path) {
  constexpr int64_t kMaxTokenizerBytes = int64_t{64} << 20;
  constexpr int64_t kMaxConfigBytes = int64_t{16} << 20;
  Env& env = PosixEnv();
  const std::string file = env.IsDirectory(path) ? JoinPath(path, "tokenizer.json") : path;
  EW_ASSIGN(const std::string json, env.ReadFile(file, kMaxTokenizerBytes));
  const std::string config_file = JoinPath(DirName(file), "tokenizer_config.json");
  std::string config;
  if (env.Exists(config_file)) {
    EW_ASSIGN(config, env.ReadFile(config_file, kMaxConfigBytes));
  }
  return FromJson(json, config).WithContext(file);
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                               bool add_special_tokens) const {
  Encoding out;
  EW_RETURN_IF_ERROR(impl_->Encode(text, {.add_special_tokens = add_special_tokens}, &out));
  return std::move(out.ids);
}

Result<std::vector<int32_t>> Tokenizer::EncodeWithoutSpecials(std::string_view text) const {
  Encoding out;
  EW_RETURN_IF_ERROR(
      impl_->Encode(text, {.add_special_tokens = false, .parse_control_tokens = false}, &out));
  return std::move(out.ids);
}

Result<Encoding> Tokenizer::EncodeWithSpans(std::string_view text, EncodeOptions options) const {
  Encoding out;
  EW_RETURN_IF_ERROR(impl_->Encode(text, options, &out));
  return out;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (int32_t id : ids) {
    const std::optional<std::string_view> spelling = impl_->Spelling(id);
    if (!spelling) continue;
    std::string token(*spelling);
    if (skip_special_tokens && impl_->special_contents.contains(token)) continue;
    tokens.push_back(std::move(token));
  }
  if (tokens.empty()) return {};
  for (const auto& step : impl_->decoder) step->Apply(&tokens);
  std::string out;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0 && !impl_->has_decoder) out.push_back(' ');
    out += tokens[i];
  }
  return out;
}

int32_t Tokenizer::vocab_size() const { return impl_->vocab_size; }

std::optional<int32_t> Tokenizer::TokenToId(std::string_view piece) const {
  const auto it = impl_->added_by_content.find(std::string(piece));
  if (it != impl_->added_by_content.end()) return impl_->added[it->second].id;
  return impl_->model->vocab().Find(piece);
}

std::optional<std::string_view> Tokenizer::IdToToken(int32_t id) const {
  const auto it = impl_->added_by_id.find(id);
  if (it != impl_->added_by_id.end()) return impl_->added[it->second].content;
  return impl_->model->vocab().Piece(id);
}

std::string Tokenizer::PieceForDisplay(int32_t id) const {
  const std::string spelling(IdToToken(id).value_or(""));
  if (IsControl(id)) return spelling;
  // What the token adds behind itself: decoders treat the first token of a text differently.
  const std::string once = Decode(std::vector<int32_t>{id});
  const std::string twice = Decode(std::vector<int32_t>{id, id});
  if (twice.size() <= once.size() || twice.compare(0, once.size(), once) != 0) return spelling;
  std::string piece = twice.substr(once.size());
  return piece.find(kReplacementUtf8) == std::string::npos ? piece : spelling;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const auto it = impl_->added_by_id.find(id);
  return it != impl_->added_by_id.end() && impl_->added[it->second].special;
}

bool Tokenizer::IsControl(int32_t id) const {
  return id >= 0 && id < impl_->vocab_size && impl_->control[id];
}

const std::vector<int32_t>& Tokenizer::control_ids() const { return impl_->control_ids; }
std::optional<int32_t> Tokenizer::bos_id() const { return impl_->bos; }
std::optional<int32_t> Tokenizer::eos_id() const { return impl_->eos; }
std::optional<int32_t> Tokenizer::pad_id() const { return impl_->pad; }
std::optional<int32_t> Tokenizer::unk_id() const { return impl_->unk; }
const std::vector<int32_t>& Tokenizer::prefix_ids() const { return impl_->prefix; }
const std::vector<int32_t>& Tokenizer::suffix_ids() const { return impl_->suffix; }

}  // namespace edgewise::text
