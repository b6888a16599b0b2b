// Weights while they are computed on: of a model in memory they are simply there, of a streamed one
// (weight_stream.h) they are waited for and kept.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "kernels/loss.h"
#include "model/model.h"

namespace edgewise::model {

class HeldWeights {
 public:
  HeldWeights(HeldWeights&& o) noexcept
      : stream_(std::exchange(o.stream_, nullptr)), unit_(o.unit_), count_(o.count_) {}
  HeldWeights& operator=(HeldWeights&& o) noexcept {
    std::swap(stream_, o.stream_);
    std::swap(unit_, o.unit_);
    std::swap(count_, o.count_);
    return *this;
  }
  ~HeldWeights();

  // The linears of a layer; all of the head (kOutOfMemory when that is more than the budget).
  static Result<HeldWeights> Layer(const Model& model, int64_t layer);
  static Result<HeldWeights> Head(const Model& model);

 private:
  HeldWeights(WeightStream* stream, int64_t unit) : stream_(stream), unit_(unit) {}
  static Result<HeldWeights> Take(const Model& model, int64_t unit, int64_t count = 1);
  friend Status EmbedTokens(ExecContext&, const Model&, std::span<const int32_t>, float*);

  WeightStream* stream_;
  int64_t unit_, count_ = 0;
};

// The head of a streamed model block by block.
class HeldHeadBlocks : public kernels::HeadBlockSource {
 public:
  explicit HeldHeadBlocks(WeightStream& stream, int64_t vocab) : stream_(stream), vocab_(vocab) {}
  ~HeldHeadBlocks() override { Let(); }
  int64_t BlockEnd(int64_t first) const override;
  bool Hold(int64_t first) override;
  const Status& status() const { return status_; }  // of what could not be read

 private:
  void Let();
  WeightStream& stream_;
  int64_t vocab_, held_ = -1;
  Status status_;
};

// logits [rows, vocab] = x [rows, hidden] times the model's head, of a streamed one block by block;
// the same bits. Error: reading failed.
Status HeadForward(ExecContext& ctx, const Model& model, int64_t rows, const float* x,
                   float* logits);

// Embeddings of `ids` (inside the vocabulary), scaled as the model says -> out [ids.size(),
// hidden].
Status EmbedTokens(ExecContext& ctx, const Model& model, std::span<const int32_t> ids, float* out);

// Tells a streamed model what is about to run: the embedding, layers [begin, end) upwards, the
// head, layers down to `lowest` (end: none), and then the same again or (forward passes, `again`
// false) the layers that follow in the model.
struct ExpectedPass {
  bool embedding = false;
  int64_t begin = 0, end = 0;
  bool head = false;
  std::vector<int64_t> head_rows = {};  // first rows of its blocks in their order; empty: upwards
  int64_t lowest = -1;                  // -1: no backward pass
  bool again = false;
};
void ExpectPass(const Model& model, const ExpectedPass& pass);

}  // namespace edgewise::model
