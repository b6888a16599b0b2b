#include "infer/exit_scorer.h"

#include <algorithm>
#include <numeric>

namespace edgewise::infer {
namespace {

constexpr int64_t kRows = 32;  // tokens whose logits are held at a time

}  // namespace

ExitScorer::ExitScorer(ExecContext& ctx, const model::Model& model, const model::ExitSet& exits,
                       int64_t max_tokens)
    : model_(model),
      exits_(exits),
      pass_(ctx, model, max_tokens),
      trunk_(max_tokens * model.config().hidden),
      stream_(max_tokens * model.config().hidden),
      logits_(exits.size() * kRows * model.config().vocab),
      row_(exits.size() * model.config().vocab) {}

int64_t ExitScorer::BytesBeside(const model::ModelConfig& c, int exits, int64_t max_tokens) {
  // Logits of a few tokens; of one token the row, and probabilities as rules and bounds combine
  // them.
  constexpr int64_t kVotes = 8;
  return 4 * ((2 + exits) * max_tokens * c.hidden + (kRows + kVotes) * exits * c.vocab);
}

Status ExitScorer::States(const TokenBatch& batch) {
  const int64_t width = model_.config().hidden;
  supervised_.clear();
  for (int64_t t = 0; t < batch.size(); ++t) {
    if (batch.targets[static_cast<size_t>(t)] >= 0) supervised_.push_back(t);
  }
  at_exit_.resize(static_cast<size_t>(exits_.size()));
  EW_RETURN_IF_ERROR(pass_.Embed(batch, trunk_.data()));
  // Streams by where they begin; the base's state moves up below them.
  std::vector<int> order(exits_.streams().size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return exits_.streams()[static_cast<size_t>(a)].layers.begin <
           exits_.streams()[static_cast<size_t>(b)].layers.begin;
  });
  int64_t trunk_at = 0;
  for (int index : order) {
    const model::ExitStream& stream = exits_.streams()[static_cast<size_t>(index)];
    if (stream.layers.begin > trunk_at) {
      EW_RETURN_IF_ERROR(pass_.Forward(batch, {trunk_at, stream.layers.begin}, nullptr,
                                       trunk_.data(), exits_.activation_bits()));
      trunk_at = stream.layers.begin;
    }
    std::copy_n(trunk_.data(), batch.size() * width, stream_.data());
    int64_t at = stream.layers.begin;
    for (int k = 0; k < exits_.size(); ++k) {
      const model::TunedExit& exit = exits_.exit(k);
      if (exit.stream != index) continue;
      EW_RETURN_IF_ERROR(pass_.Forward(batch, {at, exit.end}, stream.lora, stream_.data(),
                                       exits_.activation_bits()));
      at = exit.end;
      FloatBuffer& out = at_exit_[static_cast<size_t>(k)];
      const auto rows = static_cast<int64_t>(supervised_.size());
      if (out.size() < rows * width) out = FloatBuffer(rows * width);
      for (int64_t i = 0; i < rows; ++i) {
        std::copy_n(stream_.data() + supervised_[static_cast<size_t>(i)] * width, width,
                    out.data() + i * width);
      }
    }
  }
  return Status::Ok();
}

Status ExitScorer::Score(const TokenBatch& batch, const TokenFn& fn) {
  if (batch.size() * model_.config().hidden > trunk_.size()) {
    return InvalidArgument("a batch of more tokens than planned");
  }
  EW_RETURN_IF_ERROR(States(batch));
  const int64_t width = model_.config().hidden, vocab = model_.config().vocab;
  const auto count = static_cast<int64_t>(supervised_.size());
  for (int64_t at = 0; at < count; at += kRows) {
    const int64_t rows = std::min(kRows, count - at);
    for (int k = 0; k < exits_.size(); ++k) {
      EW_RETURN_IF_ERROR(pass_.Logits(rows, at_exit_[static_cast<size_t>(k)].data() + at * width,
                                      logits_.data() + k * kRows * vocab, exits_.exit(k).Head()));
    }
    for (int64_t i = 0; i < rows; ++i) {
      for (int k = 0; k < exits_.size(); ++k) {
        std::copy_n(logits_.data() + (k * kRows + i) * vocab, vocab, row_.data() + k * vocab);
      }
      fn(supervised_[static_cast<size_t>(at + i)], row_.span());
    }
  }
  return Status::Ok();
}

}  // namespace edgewise::infer
