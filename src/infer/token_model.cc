#include "infer/token_model.h"

namespace edgewise::infer {

Result<std::span<const float>> VotingTokenModel::Prefill(std::span<const int32_t> tokens) {
  model::ForkedDecoder::StopFn stop;
  if (voter_.policy().stop_above > 0) {
    stop = [this](int exit, std::span<const float> logits) { return voter_.Sure(exit, logits); };
  }
  EW_ASSIGN(const std::span<const float> logits, decoder_->Prefill(tokens, stop));
  ++decided_[logits.size() / static_cast<size_t>(decoder_->vocab()) - 1];
  return voter_.Combine(logits);
}

}  // namespace edgewise::infer
