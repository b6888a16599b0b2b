// Finds the order in which a step's squares (stage x micro-batch) are computed and what lies where.
#pragma once

#include <functional>
#include <vector>

#include "base/status.h"
#include "plan/device.h"
#include "plan/plan.h"

namespace edgewise::schedule {

// The workload of a step by its choice of tokens, micro_batches, recompute and mlp_tokens:
// model::DescribeStep behind a function, since the scheduler does not see models.
using DescribeFn = std::function<Result<plan::Workload>(const plan::Choice& choice)>;

// Of what costs more than time: wear of a disk, another order of summation.
enum class Use {
  kNever,
  kAuto,   // where nothing fits without it, or to save more than kClearly of the time
  kAlways  // as anything else
};
inline constexpr double kClearly = 0.1;

struct SearchOptions {
  int64_t memory_limit = 0;   // bytes; 0: the device's memory
  int64_t tokens = 512;       // of a step, in micro-batches of at most max_tokens
  int64_t max_tokens = 512;   // of a micro-batch as the data gives it
  bool split_batches = true;  // smaller micro-batches may be tried
  // What may be computed again.
  std::vector<plan::Recompute> recompute = {plan::Recompute::kNone, plan::Recompute::kMlp,
                                            plan::Recompute::kLayer};
  // The largest Choice::mlp_tokens, and whether smaller pieces (plan::MlpPieces) are tried where
  // larger ones do not fit or leave weights to be read.
  int64_t mlp_tokens = plan::kMlpTokens;
  bool smaller_pieces = true;
  Use spill = Use::kNever;     // kept activations may go to the disk
  double spill_read_gbps = 0;  // at which they come back; 0: at the disk's rate for weights
  bool overlap = true;         // reads and writes pass while others compute
  bool cached_disk = false;    // reads come from the page cache
  // Predictions that differ by this share are taken for the same: of such plans the one that moves
  // the least between memory and disk is chosen. 0 where predictions are exact (described devices).
  double uncertainty = 0;
  // Only groups of so many micro-batches (1: row by row; as many as there are, or more: column by
  // column); 0: any.
  int64_t group = 0;
  uint64_t seed = 1;  // of the annealing over what the grid is too large for
};

// Bytes that a plan holds beside weights at its peak.
int64_t HeldBeside(const plan::Workload& workload, const plan::Choice& choice);

// One choice, computed: the plan with its timeline. Error: kOutOfMemory, it does not fit.
Result<plan::Plan> Evaluate(const plan::Device& device, const plan::Workload& workload,
                            const plan::Choice& choice, const SearchOptions& options);

// The fastest plan (see SearchOptions::uncertainty). Every combination of micro-batch, group,
// recomputation, piece of the MLP and spilling is evaluated (a few hundred); with more than
// kMaxGroups possible group sizes these are annealed. Error: kOutOfMemory, with the smallest limit
// that works and what would make it smaller.
Result<plan::Plan> Search(const plan::Device& device, const DescribeFn& describe,
                          const SearchOptions& options);
inline constexpr int64_t kMaxGroups = 12;
// SearchOptions::uncertainty for a device that was measured: what predictions of the same step vary
// by on a machine with nothing else to do.
inline constexpr double kMeasuredUncertainty = 0.03;

}  // namespace edgewise::schedule
