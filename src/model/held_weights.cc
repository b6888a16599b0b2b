#include "model/held_weights.h"

#include <numeric>

#include "kernels/elementwise.h"
#include "model/weight_stream.h"
#include "tensor/dtype.h"

namespace edgewise::model {

HeldWeights::~HeldWeights() {
  if (stream_ != nullptr) stream_->Release(unit_);
}

Result<HeldWeights> HeldWeights::Take(const Model& model, int64_t unit) {
  WeightStream* stream = model.stream();
  if (stream != nullptr) EW_RETURN_IF_ERROR(stream->Acquire(unit));
  return HeldWeights(stream, unit);
}

Result<HeldWeights> HeldWeights::Layer(const Model& model, int64_t layer) {
  return Take(model, layer);
}

Result<HeldWeights> HeldWeights::Head(const Model& model) {
  return Take(model, model.stream() == nullptr ? 0 : model.stream()->head_unit());
}

Status EmbedTokens(ExecContext& ctx, const Model& model, std::span<const int32_t> ids, float* out) {
  const ModelConfig& c = model.config();
  const auto n = static_cast<int64_t>(ids.size());
  WeightStream* stream = model.stream();
  if (stream != nullptr && stream->CanGather()) {
    // Only the rows of these tokens are read; the values are those of the table.
    const DType dtype = stream->embedding_dtype();
    AlignedBuffer rows(ids.size() * static_cast<size_t>(c.hidden) * DTypeBytes(dtype));
    EW_RETURN_IF_ERROR(stream->Gather(ids, rows.as<std::byte>()));
    std::vector<int32_t> order(ids.size());
    std::iota(order.begin(), order.end(), 0);
    kernels::EmbeddingForward(ctx, n, order.data(),
                              {n, c.hidden, dtype, rows.data(), c.hidden, nullptr}, c.embed_scale,
                              out);
    return Status::Ok();
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
  if (pass.head) add(stream->head_unit());
  for (int64_t l = pass.end - 1; pass.lowest >= 0 && l >= pass.lowest; --l) add(l);
  int64_t after = -1;
  if (!pass.again) after = pass.head || pass.end >= model.config().num_layers() ? 0 : pass.end;
  stream->Expect(std::move(order), after);
}

}  // namespace edgewise::model
