#include "model/held_weights.h"

#include <algorithm>

#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/packed/packed_matrix.h"
#include "model/weight_stream.h"

namespace edgewise::model {

HeldWeights::~HeldWeights() {
  for (int64_t u = unit_; stream_ != nullptr && u < unit_ + count_; ++u) stream_->Release(u);
}

Result<HeldWeights> HeldWeights::Take(const Model& model, int64_t unit, int64_t count) {
  HeldWeights held(model.stream(), unit);
  for (; held.stream_ != nullptr && held.count_ < count; ++held.count_) {
    EW_RETURN_IF_ERROR(held.stream_->Acquire(unit + held.count_));
  }
  return held;
}

Result<HeldWeights> HeldWeights::Layer(const Model& model, int64_t layer) {
  return Take(model, layer);
}

Result<HeldWeights> HeldWeights::Head(const Model& model) {
  const WeightStream* stream = model.stream();
  if (stream == nullptr) return Take(model, 0);
  return Take(model, stream->head_unit(0), stream->head_blocks());
}

int64_t HeldHeadBlocks::BlockEnd(int64_t first) const {
  const int64_t rows = stream_.head_block_rows();
  return std::min(vocab_, (first / rows + 1) * rows);
}

bool HeldHeadBlocks::Hold(int64_t first) {
  Let();
  const int64_t unit = stream_.head_unit(first / stream_.head_block_rows());
  status_ = stream_.Acquire(unit);
  if (status_.ok()) held_ = unit;
  return status_.ok();
}

void HeldHeadBlocks::Let() {
  if (held_ >= 0) stream_.Release(held_);
  held_ = -1;
}

Status HeadForward(ExecContext& ctx, const Model& model, int64_t rows, const float* x,
                   float* logits) {
  const kernels::WeightRef& head = model.weights().head;
  if (model.stream() == nullptr) {
    kernels::LinearForward(ctx, rows, x, head.cols, head, nullptr, logits, head.rows);
    return Status::Ok();
  }
  HeldHeadBlocks blocks(*model.stream(), head.rows);
  for (int64_t first = 0, end = 0; first < head.rows; first = end) {
    end = blocks.BlockEnd(first);
    if (!blocks.Hold(first)) return blocks.status();
    kernels::WeightRef block = head;
    kernels::PackedMatrix packed;
    block.rows = end - first;
    if (head.packed != nullptr) {
      // (A sparse head is one block.)
      packed = block.rows == head.rows ? *head.packed : head.packed->Rows(first, block.rows);
      block.packed = &packed;
    } else {
      block.data = static_cast<const std::byte*>(head.data) +
                   first * head.ld * static_cast<int64_t>(DTypeBytes(head.dtype));
    }
    kernels::LinearForward(ctx, rows, x, head.cols, block, nullptr, logits + first, head.rows);
  }
  return Status::Ok();
}

Status EmbedTokens(ExecContext& ctx, const Model& model, std::span<const int32_t> ids, float* out) {
  const ModelConfig& c = model.config();
  const auto n = static_cast<int64_t>(ids.size());
  const WeightStream* stream = model.stream();
  if (stream != nullptr && stream->CanGather()) {
    return stream->Gather(ctx, ids, c.embed_scale, out);
  }
  EW_ASSIGN(const HeldWeights held,
            HeldWeights::Take(model, stream == nullptr ? 0 : stream->embedding_unit()));
  kernels::EmbeddingForward(ctx, n, ids.data(), model.weights().embedding, c.embed_scale, out);
  return Status::Ok();
}

void ExpectPass(const Model& model, const ExpectedPass& pass) {
  WeightStream* stream = model.stream();
  if (stream == nullptr) return;
  std::vector<int32_t> order;
  const auto add = [&](int64_t unit) { order.push_back(static_cast<int32_t>(unit)); };
  if (pass.embedding && !stream->CanGather()) add(stream->embedding_unit());
  for (int64_t l = pass.begin; l < pass.end; ++l) add(l);
  if (pass.head_rows.empty()) {
    for (int64_t b = 0; pass.head && b < stream->head_blocks(); ++b) add(stream->head_unit(b));
  }
  for (int64_t row : pass.head_rows) add(stream->head_unit(row / stream->head_block_rows()));
  for (int64_t l = pass.end - 1; pass.lowest >= 0 && l >= pass.lowest; --l) add(l);
  int64_t after = -1;
  if (!pass.again) after = pass.head || pass.end >= model.config().num_layers() ? 0 : pass.end;
  stream->Expect(std::move(order), after);
}

}  // namespace edgewise::model
