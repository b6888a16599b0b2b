#include "infer/logit_error.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/weight_rows.h"
#include "model/decoder.h"
#include "model/held_weights.h"
#include "model/kv_cache.h"

namespace edgewise::infer {
namespace {

using model::WeightId;
using model::WeightRole;

Result<std::unique_ptr<model::Model>> LoadPart(const std::string& path,
                                               std::function<bool(const WeightId&)> only) {
  model::LoadOptions load;
  load.keep_quant = true;
  load.only = std::move(only);
  return model::Model::Load(path, std::move(load));
}

// The states below the head, and the head.
class Probe {
 public:
  static Result<std::unique_ptr<Probe>> Run(ExecContext& ctx, const ProbedModel& from,
                                            std::span<const int32_t> tokens) {
    std::unique_ptr<Probe> probe(new Probe(ctx, from));
    EW_RETURN_IF_ERROR(probe->Forward(tokens));
    return probe;
  }

  int64_t vocab() const { return top_->config().vocab; }
  int64_t block_rows() const {
    return std::max<int64_t>(1, kHeadBlockBytes / (top_->config().hidden * 4));
  }
  // Logits of the words first .. first + n - 1 -> out [positions, n].
  void Logits(int64_t first, int64_t n, float* out);

 private:
  Probe(ExecContext& ctx, const ProbedModel& from) : ctx_(ctx), from_(from) {}
  Status Forward(std::span<const int32_t> tokens);
  WeightId HeadId() const {
    return {top_->config().tied ? WeightRole::kEmbedding : WeightRole::kHead};
  }

  ExecContext& ctx_;
  const ProbedModel& from_;
  std::unique_ptr<model::Model> top_;  // head and norm
  int64_t rows_ = 0;
  FloatBuffer normed_, block_, xa_;
};

Status Probe::Forward(std::span<const int32_t> tokens) {
  rows_ = static_cast<int64_t>(tokens.size());
  FloatBuffer hidden;
  int64_t layers = 0;
  {
    const auto embedding = [](const WeightId& id) { return id.role == WeightRole::kEmbedding; };
    EW_ASSIGN(const auto part, LoadPart(from_.path, embedding));
    const model::ModelConfig& c = part->config();
    for (const int32_t id : tokens) {
      if (id >= c.vocab) return BadInput(from_.path + " has another vocabulary");
    }
    layers = std::min(from_.layers, c.num_layers());
    hidden = FloatBuffer(rows_ * c.hidden);
    EW_RETURN_IF_ERROR(model::EmbedTokens(ctx_, *part, tokens, hidden.data()));
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    EW_ASSIGN(const auto part,
              LoadPart(from_.path, [layer](const WeightId& id) { return id.layer == layer; }));
    model::LayerStackOptions options;
    options.max_rows = options.max_context = rows_;
    options.lora = from_.lora;
    options.lora_begin = from_.lora_begin;
    options.exact_forward = true;
    const model::LayerRange range{layer, layer + 1};
    EW_ASSIGN(auto cache, model::KvCache::Create(part->config(), range, rows_));
    EW_ASSIGN(auto stack, model::LayerStack::Create(ctx_, *part, range, options));
    EW_RETURN_IF_ERROR(stack.Forward(cache, rows_, hidden.data()));
  }
  EW_ASSIGN(top_, LoadPart(from_.path, [](const WeightId& id) {
              return id.role == WeightRole::kFinalNorm || id.role == WeightRole::kHead;
            }));
  if (top_->config().tied) {
    EW_ASSIGN(top_, LoadPart(from_.path, [](const WeightId& id) { return id.layer < 0; }));
  }
  const model::ModelConfig& c = top_->config();
  normed_ = FloatBuffer(rows_ * c.hidden);
  block_ = FloatBuffer(std::min(block_rows(), c.vocab) * c.hidden);
  xa_ = FloatBuffer(std::max<int64_t>(1, rows_ * from_.head.lora_r));
  kernels::RmsNormForward(ctx_, rows_, c.hidden, static_cast<float>(c.norm_eps), c.norm_plus_one,
                          hidden.data(),
                          from_.head.norm != nullptr ? from_.head.norm : top_->weights().final_norm,
                          normed_.data(), nullptr);
  return Status::Ok();
}

void Probe::Logits(int64_t first, int64_t n, float* out) {
  const model::ModelConfig& c = top_->config();
  const model::ExitHead& head = from_.head;
  kernels::WeightRowsToF32(head.head != nullptr ? *head.head : top_->weights().head, first, n,
                           block_.data());
  top_->DropCached(HeadId());
  kernels::LinearForward(ctx_, rows_, normed_.data(), c.hidden,
                         kernels::WeightRef::Dense(block_.data(), n, c.hidden), nullptr, out, n);
  if (head.lora_r > 0) {
    kernels::LoraForward(ctx_, rows_, c.hidden, n, head.lora_r, head.lora_scale, normed_.data(),
                         c.hidden, head.lora_a, head.lora_b + first * head.lora_r, xa_.data(), out,
                         n);
  }
  if (c.logit_softcap <= 0) return;
  for (int64_t i = 0; i < rows_ * n; ++i) {
    out[i] = c.logit_softcap * std::tanh(out[i] / c.logit_softcap);
  }
}

Result<std::vector<int32_t>> ProbeTokens(const std::string& path) {
  EW_ASSIGN(const auto model, LoadPart(path, [](const WeightId&) { return false; }));
  const model::ModelConfig& c = model->config();
  Rng rng(0, RngStream::kCalibration);
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(kProbeTokens, c.max_positions)));
  for (int32_t& t : tokens) {
    t = static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(c.vocab)));
  }
  return tokens;
}

Result<double> Compare(ExecContext& ctx, const ProbedModel& want, const ProbedModel& got) {
  EW_ASSIGN(const std::vector<int32_t> tokens, ProbeTokens(want.path));
  EW_ASSIGN(const auto left, Probe::Run(ctx, want, tokens));
  EW_ASSIGN(const auto right, Probe::Run(ctx, got, tokens));
  const int64_t vocab = left->vocab();
  if (right->vocab() != vocab) return BadInput(got.path + " has another vocabulary");
  const int64_t step = std::min({left->block_rows(), right->block_rows(), vocab});
  FloatBuffer wanted(static_cast<int64_t>(tokens.size()) * step), found(wanted.size());
  double difference = 0, size = 0;
  for (int64_t first = 0; first < vocab; first += step) {
    const int64_t n = std::min(step, vocab - first);
    left->Logits(first, n, wanted.data());
    right->Logits(first, n, found.data());
    for (int64_t i = 0; i < static_cast<int64_t>(tokens.size()) * n; ++i) {
      const float l = wanted.data()[i], r = found.data()[i];
      if (!std::isfinite(l) || !std::isfinite(r)) {
        return BadInput(
            "the written model's logits, or those it is compared with, are not numbers");
      }
      difference = std::max(difference, std::fabs(static_cast<double>(l) - r));
      size = std::max(size, std::fabs(static_cast<double>(l)));
    }
  }
  return size > 0 ? difference / size : difference;
}

}  // namespace

Result<double> LogitError(ExecContext& ctx, const ProbedModel& want, const ProbedModel& got) {
  try {
    return Compare(ctx, want, got);
  } catch (const std::bad_alloc&) {
    return OutOfMemory("there is no memory for a layer of the model that is compared");
  }
}

}  // namespace edgewise::infer
