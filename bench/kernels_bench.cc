// Speed of the kernels on the shapes of known models.
//
//   kernels_bench [--threads=N] [--benchmark_filter=REGEX] [--benchmark_format=json] ...
//
// share_of_peak is of the fp32 multiply-add peak, measured on the same threads just before.
// EDGEWISE_ISA names the instruction set.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "bench/setup.h"

int main(int argc, char** argv) {
  edgewise::ExecOptions options;
  int kept = 1;
  for (int i = 1; i < argc; ++i) {
    if (std::strncmp(argv[i], "--threads=", 10) == 0) {
      options.threads = std::atoi(argv[i] + 10);
    } else {
      argv[kept++] = argv[i];
    }
  }
  argc = kept;
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  auto ctx = edgewise::ExecContext::Create(options);
  if (!ctx.ok()) {
    std::fprintf(stderr, "kernels_bench: %s\n", ctx.status().message().c_str());
    return 1;
  }
  const edgewise::kernels::Peaks peaks = edgewise::kernels::MeasurePeaks(**ctx);
  benchmark::AddCustomContext("cpu", (*ctx)->cpu().name);
  benchmark::AddCustomContext("isa", std::string(edgewise::IsaName((*ctx)->isa())));
  benchmark::AddCustomContext("threads", std::to_string((*ctx)->threads()));
  benchmark::AddCustomContext("fp32_peak_gflops", std::to_string(peaks.fp32_gflops));
  benchmark::AddCustomContext("int8_peak_gops", std::to_string(peaks.int8_gops));
  benchmark::AddCustomContext("read_gbps", std::to_string(peaks.read_gbps));
  edgewise::bench::RegisterDense(**ctx);
  edgewise::bench::RegisterAttention(**ctx);
  edgewise::bench::RegisterHeadLoss(**ctx);
  edgewise::bench::RegisterElements(**ctx);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
