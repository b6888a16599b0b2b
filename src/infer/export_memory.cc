#include "infer/export_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/units.h"
#include "exec/memory.h"
#include "infer/dense_export.h"
#include "model/decoder.h"
#include "model/kv_cache.h"
#include "model/weight_table.h"

namespace edgewise::infer {
namespace {

using model::WeightId;
using model::WeightRole;

// What a product packs at once, and each thread for itself, of so few rows.
constexpr int64_t kSharedScratch = int64_t{6} << 20;
constexpr int64_t kScratchPerThread = int64_t{1} << 20;
// Of a mapped embedding or head: a block of rows, or the pages around the rows of the tokens.
constexpr int64_t kMappedEnds = int64_t{8} << 20;

ProbeBytes Sum(const model::ModelConfig& c,
               const std::function<WrittenMatrix(const WeightId&)>& bytes) {
  std::vector<int64_t> layers(c.layers.size(), 0);
  int64_t largest = 0;
  ProbeBytes sum;
  for (const WeightId& id : model::ListWeights(c)) {
    if (!id.is_matrix()) continue;
    const WrittenMatrix m = bytes(id);
    if (id.role == WeightRole::kLinear) {
      layers[static_cast<size_t>(id.layer)] += m.bytes;
      // Blocks are packed from the mapped file; packed matrices are read to be verified.
      if (m.blocks) largest = std::max(largest, m.bytes);
    } else {
      sum.ends = std::max(sum.ends, m.blocks ? 2 * m.bytes : std::min(m.bytes, kMappedEnds));
    }
  }
  for (const int64_t layer : layers) sum.layer = std::max(sum.layer, layer + largest);
  return sum;
}

}  // namespace

ProbeBytes ProbeBytesOf(const model::Model& model) {
  return Sum(model.config(), [&](const WeightId& id) -> WrittenMatrix {
    const kernels::WeightRef& w = model::MatrixOf(model.weights(), id);
    if (w.packed != nullptr) return {static_cast<int64_t>(w.packed->bytes().size()), true};
    return {w.rows * w.ld * static_cast<int64_t>(DTypeBytes(w.dtype)), false};
  });
}

ProbeBytes ProbeBytesOf(const model::ModelConfig& config,
                        const std::function<WrittenMatrix(const WeightId&)>& written) {
  return Sum(config, written);
}

ProbeBytes DenseProbeBytes(const model::Model& base, const model::ModelConfig& config,
                           std::optional<DType> wanted) {
  return Sum(config, [&](const WeightId& id) -> WrittenMatrix {
    const std::vector<int64_t> shape = model::ShapeOf(config, id);
    const auto element = static_cast<int64_t>(DTypeBytes(DenseTypeOf(base, id, wanted)));
    return {shape[0] * shape[1] * element, false};
  });
}

int64_t WritingBytes() { return int64_t{12} << 20; }

int64_t LogitErrorBytes(ExecContext& ctx, const model::Model& base, const ProbedModel& want,
                        const ProbeBytes& base_bytes, const ProbeBytes& written) {
  const model::ModelConfig& c = base.config();
  const int64_t rows = std::min(kProbeTokens, c.max_positions);
  const int64_t states = 2 * rows * c.hidden * 4;
  model::LayerStackOptions options;
  options.max_rows = options.max_context = rows;
  options.lora = want.lora;
  const model::LayerRange one{0, std::min<int64_t>(1, c.num_layers())};
  int64_t layer = std::max(base_bytes.layer, written.layer) + states;
  if (const auto stack = model::LayerStack::Create(ctx, base, one, options); stack.ok()) {
    layer += stack->scratch_bytes();
  }
  if (const auto cache = model::KvCache::Create(c, one, rows); cache.ok()) layer += cache->bytes();
  const int64_t words = std::min(c.vocab, kHeadBlockBytes / (c.hidden * 4) + 1);
  const int64_t head =
      base_bytes.ends + written.ends + 2 * (words * c.hidden + rows * words) * 4 + states;
  return std::max(layer, head) + kSharedScratch + ctx.threads() * kScratchPerThread;
}

Result<int64_t> FitExport(int64_t limit, int64_t work, const std::string& advice) {
  const ProcessMemory now = ReadProcessMemory();
  const int64_t peak = std::max(now.peak_rss_bytes, now.rss_bytes + work);
  if (limit == 0 || peak <= limit) return peak;
  // What is resident here differs by some pages from run to run: a MiB more than it is now.
  return OutOfMemory(fmt::format(
      "this does not fit {}: it takes {}, of which {} are in use already. The smallest limit that "
      "works is --memory {}MiB; {}",
      FormatBytes(limit), FormatBytes(peak), FormatBytes(now.rss_bytes), (peak >> 20) + 2, advice));
}

}  // namespace edgewise::infer
