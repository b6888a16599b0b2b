// edgewise bench kernels.
#pragma once

#include "bench/kernel_bench.h"
#include "cli/command.h"

namespace edgewise::cli {

Status RunBenchKernels(Invocation& inv, const bench::KernelBenchOptions& options);

}  // namespace edgewise::cli
