// Kernel-level search: how the product of a packed weight is cut into tasks on this machine. A
// model ranks the candidates, the best few are measured, and the fastest is kept.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "kernels/packed/format.h"
#include "kernels/packed/tiling.h"
#include "plan/device.h"

namespace edgewise::schedule {

using kernels::KernelTuning;
using kernels::ProductKey;
using kernels::ProductTiling;

struct TilingCandidate {
  ProductTiling tiling;
  double predicted_seconds = 0;
  double seconds = 0;  // measured; 0: it was not
};

struct KernelSearchResult {
  ProductKey key;
  std::vector<TilingCandidate> candidates;  // best prediction first
  ProductTiling chosen;
  double chosen_seconds = 0;
  double default_seconds = 0;  // what the kernel does by itself
  // Of the best of all (the default included), when all were measured: it, the choice and the
  // default timed again.
  double exhaustive_seconds = 0;
  int measured = 0;  // candidates measured to choose
};

struct KernelSearchOptions {
  int64_t tokens = 512;
  // At least 1: cuts and orders measured, best prediction first, beside the default; then the
  // fastest few with weights fetched at other distances.
  int measure = 12;
  bool exhaustive = false;  // measure all of them, too, for comparison
};

// For weights of this form (random values, half of them zero where the format is sparse).
Result<KernelSearchResult> SearchKernel(ExecContext& ctx, const kernels::PackedFormat& format,
                                        const KernelSearchOptions& options);

// What can be chosen for a product of so many rows: tiles and rows of a task (with all rows a panel
// is unpacked once, with few again and again), loop order, and how far ahead weights are fetched.
std::vector<ProductTiling> ListTilings(const kernels::PackedFormat& format, int64_t tokens);

// Seconds that the model predicts: unpacking once per task of rows, arithmetic, what has to be
// fetched again under the loop order, threads that wait for the last task.
double PredictTiling(const kernels::PackedFormat& format, int64_t tokens,
                     const ProductTiling& tiling, const CpuInfo& cpu, int threads);

// "panels" or "rows": the inner loop.
std::string_view LoopOrderName(kernels::LoopOrder order);

// Where the tunings of this machine are kept, beside its profile (DevicePath).
std::string TuningPath(const ExecContext& ctx, std::string_view version);
// The tunings of a device. Loading a file that is not there gives none.
Status SaveTuning(const KernelTuning& tuning, const std::string& path);
Status LoadTuning(const std::string& path, KernelTuning* tuning);

}  // namespace edgewise::schedule
