#include "compress/memory_need.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "compress/gradient_sample.h"
#include "compress/input_stats.h"
#include "model/training_pass.h"
#include "model/weight_table.h"

namespace edgewise::compress {
namespace {

using model::kAllLinears;
using model::LinearKind;

// The allocator's own, panels of the matrix products, pages that a mapping brings in around those
// that were asked for.
constexpr int64_t kSlack = int64_t{24} << 20;

struct Sizes {
  int64_t layer_weights = 0;  // of all linears of a layer
  int64_t layer_mapped = 0;   // bytes of them that lie in mapped files; the largest layer
  int64_t embedding = 0;      // weights of the larger of embedding and head
  int64_t embedding_mapped = 0;
  int64_t longest = 1;  // tokens of a window
  int64_t states = 0;   // bytes of all hidden states
};

Sizes SizesOf(const model::Model& model, const std::vector<TokenBatch>& windows) {
  const model::ModelConfig& c = model.config();
  Sizes s;
  for (LinearKind kind : kAllLinears) {
    const model::LinearShape shape = model::ShapeOf(c, kind);
    s.layer_weights += shape.in * shape.out;
  }
  std::vector<int64_t> mapped(c.layers.size(), 0);
  for (const model::WeightId& id : model::ListWeights(c)) {
    if (!id.is_matrix()) continue;
    const kernels::WeightRef& w = model::MatrixOf(model.weights(), id);
    if (id.role == model::WeightRole::kLinear) {
      mapped[static_cast<size_t>(id.layer)] += model.MappedBytes(id);
    } else {
      s.embedding = std::max(s.embedding, w.rows * w.cols);
      s.embedding_mapped = std::max(s.embedding_mapped, model.MappedBytes(id));
    }
  }
  s.layer_mapped = *std::max_element(mapped.begin(), mapped.end());
  for (const TokenBatch& b : windows) {
    s.longest = std::max(s.longest, b.size());
    s.states += b.size() * c.hidden * 4;
  }
  return s;
}

int64_t LayerPassBytes(ExecContext& ctx, const model::Model& model, int64_t tokens) {
  model::PassOptions options;
  options.begin = 0;
  options.end = 1;
  options.mlp_rows = 0;  // as observers want them
  return model::TrainingPass(ctx, model, tokens).MemoryNeeded(options).total() +
         tokens * model.config().hidden * 4;
}

// A linear [out, in] on its way: the weights and their copies, codes, mask and the packed form take
// below 20 bytes a weight.
constexpr int64_t kLinearBytes = 20;

}  // namespace

MemoryNeed CompressNeed(ExecContext& ctx, const model::Model& model,
                        const std::vector<TokenBatch>& windows, const CompressOptions& options,
                        int64_t resident) {
  const model::ModelConfig& c = model.config();
  const Sizes s = SizesOf(model, windows);
  const bool second_order =
      options.pruner == Pruner::kSparseGpt || options.quantizer == Quantizer::kGptq;
  // The Hessian of its inputs and the factor are there meanwhile.
  int64_t linear = 0;
  for (LinearKind kind : kAllLinears) {
    const model::LinearShape shape = model::ShapeOf(c, kind);
    const int64_t square = shape.in * shape.in * 4;
    linear =
        std::max(linear, square * (second_order ? 2 : 1) + shape.in * shape.out * kLinearBytes);
  }
  const int64_t pass = LayerPassBytes(ctx, model, s.longest);
  // The layer as it is rebuilt in fp32, and what of it waits to be written (fp16 at most).
  const int64_t layer = pass + linear + s.layer_weights * 6 + s.layer_mapped;
  // Codes and packed form of the embedding.
  const int64_t embedding = pass + s.embedding * 3 + s.embedding_mapped;
  MemoryNeed need;
  need.resident = resident;
  need.mapped = layer >= embedding ? s.layer_mapped : s.embedding_mapped;
  need.work = std::max(layer, embedding) - need.mapped + kSlack;
  need.states = s.states;
  return need;
}

MemoryNeed ProfileNeed(ExecContext& ctx, const model::Model& model,
                       const std::vector<TokenBatch>& windows, const ProfileOptions& options,
                       int64_t resident) {
  const model::ModelConfig& c = model.config();
  const Sizes s = SizesOf(model, windows);
  int64_t sampled = 0;
  for (size_t w : SpreadWindows(windows, options.loss_tokens)) sampled += windows[w].size();
  int64_t hessians = 0, samples = 0, linear = 0;
  for (LinearKind kind : kAllLinears) {
    const model::LinearShape shape = model::ShapeOf(c, kind);
    const int64_t square = shape.in * shape.in * 4;
    if (InputOf(kind) == kind) {
      hessians += square;
      samples += sampled * shape.in * 4;
    }
    // The factor; the linear; its outputs, their errors and gradients on the sampled tokens.
    linear = std::max(
        linear, square + shape.in * shape.out * kLinearBytes + sampled * shape.out * (3 * 4 + 2));
  }
  const model::TrainingPass pass(ctx, model, s.longest);
  const int64_t divergence =
      options.kl_windows > 0 ? options.kl_windows * s.longest * c.hidden * 4 + 2 * 32 * c.vocab * 4
                             : 0;
  // The layer in fp32 twice, original and candidate.
  const int64_t layer = LayerPassBytes(ctx, model, s.longest) * 3 + hessians + samples + linear +
                        s.layer_weights * 8 + s.layer_mapped + divergence;
  // Gradients: two layers' weights, the embedding and the head may be there at a time.
  const int64_t gradients = sampled == 0 ? 0
                                         : GradientSample::PassBytes(pass, c) + 2 * s.layer_mapped +
                                               2 * s.embedding_mapped;
  MemoryNeed need;
  need.resident = resident;
  need.mapped = layer >= gradients ? s.layer_mapped : 2 * s.layer_mapped + 2 * s.embedding_mapped;
  need.work = std::max(layer, gradients) - need.mapped + kSlack;
  // Those entering a layer and those leaving it, and the gradients.
  need.states = 2 * s.states + GradientSample::Bytes(c, sampled);
  return need;
}

Result<int64_t> StatesWithin(const MemoryNeed& need, int64_t limit) {
  if (need.smallest() > limit) {
    return OutOfMemory(fmt::format(
        "this takes at least {} ({} are in use already, {} of weights at a time, {} of buffers), "
        "the limit is {}; raise it, or take shorter windows",
        FormatBytes(need.smallest()), FormatBytes(need.resident), FormatBytes(need.mapped),
        FormatBytes(need.work), FormatBytes(limit)));
  }
  return limit - need.smallest();
}

}  // namespace edgewise::compress
