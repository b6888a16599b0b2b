// How a run fits whose weights lie in memory as a whole: those of a GGUF file, and those that full
// fine-tuning changes.
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/units.h"
#include "tune/memory_estimate.h"

namespace edgewise::tune {

Result<MemoryFit> FitMapped(ExecContext& ctx, const model::Model& model,
                            const MemoryRequest& request, int64_t limit_bytes, int64_t* smallest) {
  MemoryRequest r = request;
  MemoryFit fit;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const RecomputeForm& form : FormsToTry(request)) {
    r.method.recompute = fit.recompute = form.recompute;
    r.method.mlp_rows = fit.mlp_rows = form.mlp_rows;
    EW_ASSIGN(fit.estimate, EstimateMemory(ctx, model, r));
    if (limit_bytes <= 0 || fit.estimate.total() <= limit_bytes) return fit;
    least = std::min(least, fit.estimate.total());
  }
  // What is resident varies a little from one process to the next.
  const int64_t works = (least >> 20) + 2;
  if (smallest != nullptr) *smallest = works << 20;
  const std::string stated = fmt::format("The smallest limit that works is --memory {}MiB", works);
  if (request.pass) {
    return OutOfMemory(
        fmt::format("this run takes {}, the limit is {}. {}; shorter rows, a lower --rank or "
                    "--head-lora-rank make it smaller",
                    fit.estimate.ToString(), FormatBytes(limit_bytes), stated));
  }
  const Status refusal = CheckMemory(ctx, model, r, limit_bytes);
  return Status(StatusCode::kOutOfMemory, fmt::format("{}. {}", refusal.message(), stated));
}

}  // namespace edgewise::tune
