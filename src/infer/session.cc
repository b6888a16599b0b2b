#include "infer/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "infer/load_tokenizer.h"
#include "infer/stop_strings.h"
#include "io/env.h"

namespace edgewise::infer {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Whether a directory given as adapter holds a whole model instead (full fine-tuning).
bool HoldsWholeModel(const std::string& dir) {
  Env& env = PosixEnv();
  return !env.Exists(JoinPath(dir, "adapter_config.json")) &&
         env.Exists(JoinPath(dir, "config.json"));
}

// Turns ids into text and decides when to end: end tokens, stop strings, the caller.
class TextSink {
 public:
  TextSink(const text::Tokenizer& tokenizer, const GenerateOptions& options,
           const Session::OnText& on_text, std::string& text)
      : decode_(tokenizer, options.skip_special_tokens),
        stop_(options.stop),
        on_text_(on_text),
        text_(text) {}

  void Token(int32_t id) {
    if (std::optional<std::string> piece = decode_.Step(id)) Emit(stop_.Feed(*piece));
  }
  void Finish() {
    const std::string rest = decode_.Finish();
    std::string out = stop_.Feed(rest);
    out += stop_.Finish();
    Emit(out);
  }
  bool stopped() const { return stop_.stopped(); }
  bool refused() const { return refused_; }

 private:
  void Emit(const std::string& piece) {
    if (piece.empty()) return;
    text_ += piece;
    if (on_text_ && !refused_ && !on_text_(piece)) refused_ = true;
  }

  text::DecodeStream decode_;
  StopStrings stop_;
  const Session::OnText& on_text_;
  std::string& text_;
  bool refused_ = false;
};

}  // namespace

Result<std::unique_ptr<Session>> Session::Open(ExecContext& ctx, const std::string& name,
                                               const SessionOptions& options) {
  std::unique_ptr<Session> session(new Session(ctx));
  session->options_ = options;
  EW_ASSIGN(session->location_, formats::ResolveModel(name));
  const bool whole = !options.adapter.empty() && HoldsWholeModel(options.adapter);
  EW_ASSIGN(session->model_,
            model::Model::Load(whole ? options.adapter : session->location_.path, options.load));
  EW_ASSIGN(text::Tokenizer tokenizer, LoadTokenizer(session->location_));
  session->tokenizer_.emplace(std::move(tokenizer));
  int& bits = session->options_.activation_bits;
  if (bits < 0) {
    bits = 0;
    if (!options.adapter.empty()) {
      EW_ASSIGN(bits, model::TunedActivationBits(options.adapter));
    }
  }
  if (model::ExitSet::Exists(options.adapter)) {
    EW_RETURN_IF_ERROR(session->OpenExits());
  } else if (!options.adapter.empty() && !whole) {
    EW_ASSIGN(model::LoraAdapter adapter,
              model::LoadPeftAdapter(options.adapter, session->model_->config()));
    session->adapter_.emplace(std::move(adapter));
  }
  EW_ASSIGN(
      session->defaults_,
      ReadGenerationDefaults(session->location_, session->model_->config(), *session->tokenizer_));
  return session;
}

std::vector<bool> Session::DrawableIds() const {
  std::vector<bool> allowed(static_cast<size_t>(model_->config().vocab));
  for (size_t i = 0; i < allowed.size(); ++i) {
    allowed[i] = tokenizer_->IdToToken(static_cast<int32_t>(i)).has_value();
  }
  return allowed;
}

Status Session::OpenExits() {
  EW_ASSIGN(exits_, model::ExitSet::Load(options_.adapter, model_->config()));
  exits_->set_activation_bits(options_.activation_bits);
  EW_ASSIGN(std::optional<VotePolicy> policy, ReadVotePolicy(options_.adapter, exits_->size()));
  if (!policy) {
    // A run whose vote was never fitted: its deepest exit.
    policy.emplace();
    policy->config.single_exit = exits_->size() - 1;
  }
  if (!options_.vote.empty()) {
    EW_ASSIGN(vote::VoteConfig named, vote::ParseRule(options_.vote, exits_->size()));
    named.temperatures = policy->config.temperatures;
    if (named.rule == vote::Rule::kWeighted && !policy->config.weights.empty()) {
      named.weights = policy->config.weights;
    }
    policy->config = std::move(named);
  }
  if (options_.stop_above >= 0) policy->stop_above = options_.stop_above;
  voter_.emplace(ctx_, std::move(*policy), exits_->size(), model_->config().vocab);
  return Status::Ok();
}

void Session::LimitContext(int64_t tokens) {
  options_.max_context = tokens;
  decoder_.reset();
  cached_.clear();
}

Result<TokenModel*> Session::decoder() {
  if (decoder_ == nullptr) {
    model::DecoderOptions options;
    options.max_context = options_.max_context;
    options.kv_form = options_.kv_form;
    options.activation_bits = options_.activation_bits;
    if (exits_) {
      EW_ASSIGN(auto decoder, model::ForkedDecoder::Create(ctx_, *model_, *exits_, options));
      decoder_ = std::make_unique<VotingTokenModel>(std::move(decoder), *voter_);
    } else {
      EW_ASSIGN(auto decoder, model::Decoder::Create(ctx_, *model_, options, adapter()));
      decoder_ = std::make_unique<PlainTokenModel>(std::move(decoder));
    }
  }
  return decoder_.get();
}

Result<Generation> Session::Generate(std::span<const int32_t> prompt,
                                     const GenerateOptions& options, const OnText& on_text) {
  EW_RETURN_IF_ERROR(ValidateSampling(options.sampling));
  if (prompt.empty()) return InvalidArgument("the prompt is empty");
  if (options.max_tokens < 0) return InvalidArgument("max-tokens has to be 0 or more");
  EW_ASSIGN(TokenModel * decoder, this->decoder());
  if (static_cast<int64_t>(prompt.size()) > decoder->max_context()) {
    return InvalidArgument(fmt::format("the prompt has {} tokens, the context holds {}",
                                       prompt.size(), decoder->max_context()));
  }
  Generation out;
  out.prompt_tokens = static_cast<int64_t>(prompt.size());

  // At least the last token of the prompt has to be run: its logits are needed.
  const size_t limit = std::min(cached_.size(), prompt.size() - 1);
  size_t shared = 0;
  while (shared < limit && cached_[shared] == prompt[shared]) ++shared;
  if (static_cast<int64_t>(shared) > decoder->length()) shared = 0;
  out.reused_tokens = static_cast<int64_t>(shared);
  decoder->Truncate(static_cast<int64_t>(shared));
  cached_.assign(prompt.begin(), prompt.begin() + static_cast<int64_t>(shared));

  const std::vector<int64_t> decided(decoder->decided().begin(), decoder->decided().end());
  double start = Now();
  Result<std::span<const float>> logits = decoder->Prefill(prompt.subspan(shared));
  if (!logits.ok()) {
    cached_.clear();
    return logits.status();
  }
  cached_.assign(prompt.begin(), prompt.end());
  out.prefill_seconds = Now() - start;

  Sampler sampler(options.sampling, DrawableIds());
  TextSink sink(*tokenizer_, options, on_text, out.text);
  std::vector<int32_t> history(prompt.begin(), prompt.end());
  int64_t steps = 0;
  start = Now();
  out.finish = "length";
  while (static_cast<int64_t>(out.ids.size()) < options.max_tokens) {
    EW_ASSIGN(const int32_t id, sampler.Sample(*logits, history));
    out.ids.push_back(id);
    history.push_back(id);
    const bool ends =
        !options.ignore_eos && std::find(defaults_.eos_ids.begin(), defaults_.eos_ids.end(), id) !=
                                   defaults_.eos_ids.end();
    if (!ends || !options.skip_special_tokens) sink.Token(id);
    if (ends || sink.stopped()) {
      out.finish = "stop";
      break;
    }
    if (sink.refused() || (options.cancel != nullptr && options.cancel->load())) {
      out.finish = "cancelled";
      break;
    }
    if (static_cast<int64_t>(out.ids.size()) == options.max_tokens) break;
    if (decoder->length() >= decoder->max_context()) break;
    logits = decoder->Step(id);
    if (!logits.ok()) {
      cached_.clear();
      return logits.status();
    }
    cached_.push_back(id);
    ++steps;
  }
  out.decode_seconds = Now() - start;
  sink.Finish();
  for (size_t k = 0; k < decided.size(); ++k) {
    out.decided.push_back(decoder->decided()[k] - decided[k]);
  }
  if (steps > 0) out.tokens_per_second = static_cast<double>(steps) / out.decode_seconds;
  return out;
}

}  // namespace edgewise::infer
