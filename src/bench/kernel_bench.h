// Speed of the kernels on the shapes of known models, each held against what the machine can do at
// best, measured in the same run: what `edgewise bench kernels` prints.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "kernels/peaks.h"

namespace edgewise::bench {

struct KernelBenchOptions {
  std::string shape;         // one of shapes.h; empty: all of them
  std::string filter;        // extended regular expression on names; empty: all
  double min_seconds = 0.2;  // of each benchmark
};

struct KernelBenchResult {
  std::string name;          // forward/q4_g64/m512/tinyllama-1.1b/gate
  double seconds = 0;        // best iteration: other work on the machine only makes it slower
  double seconds_mean = 0;   // of all iterations
  double gops = 0;           // 10^9 operations a second, a multiply-add being two
  double gbytes = 0;         // 10^9 bytes of operands a second
  std::string peak;          // which limit `share_of_peak` is of: fp32, int8 or read
  double share_of_peak = 0;  // 0: the instruction set has no such limit
  std::map<std::string, double> more;  // bits per weight, error of a gradient
};

struct KernelBenchReport {
  kernels::Peaks peaks;  // the best seen during the run
  std::vector<KernelBenchResult> results;
};

// Runs them; `done` is called after each with what is known so far (its share of a peak may still
// fall). Not for two threads at once: Google Benchmark keeps its list in global variables.
// Error: an unknown shape, a bad expression, nothing that is selected.
Result<KernelBenchReport> RunKernelBenchmarks(
    ExecContext& ctx, const KernelBenchOptions& options,
    const std::function<void(const KernelBenchResult&)>& done);

}  // namespace edgewise::bench
