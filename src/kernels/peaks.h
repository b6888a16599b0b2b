// What this machine can do at best, measured: the yardstick of benchmarks and of the scheduler.
#pragma once

#include "exec/context.h"

namespace edgewise::kernels {

struct Peaks {
  double fp32_gflops = 0;  // multiply-adds from registers, counted as two operations
  double int8_gops = 0;    // integer dot products from registers; 0: the set has no instruction
  double read_gbps = 0;    // reading memory beyond every cache, GB (10^9 bytes) a second
};

// With the context's instruction set and all its threads, about a second. Takes the best of several
// short runs, since other work on the machine only ever makes them slower. Allocates 64 MiB or four
// times the last cache, at most 256 MiB, while it runs.
Peaks MeasurePeaks(ExecContext& ctx);
// Parts of it.
double MeasureFp32Peak(ExecContext& ctx);
double MeasureInt8Peak(ExecContext& ctx);
double MeasureReadBandwidth(ExecContext& ctx);

}  // namespace edgewise::kernels
