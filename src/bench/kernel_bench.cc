#include "bench/kernel_bench.h"

#include <fmt/format.h>

#include <regex>

#include "bench/suite.h"

namespace edgewise::bench {
namespace {

// Keeps what Google Benchmark would print.
class Collector : public benchmark::BenchmarkReporter {
 public:
  Collector(const PeakMeter& peaks, const std::function<void(const KernelBenchResult&)>& done)
      : peaks_(peaks), done_(done) {}

  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs) {
      if (run.run_type != Run::RT_Iteration) continue;
      KernelBenchResult r;
      r.name = run.run_name.function_name;
      r.seconds_mean = run.GetAdjustedRealTime() / benchmark::GetTimeUnitMultiplier(run.time_unit);
      for (const auto& [name, counter] : run.counters) r.more[name] = counter.value;
      r.seconds = Take(r, "best_seconds");
      r.gops = Take(r, "operations") / r.seconds * 1e-9;
      r.gbytes = Take(r, "bytes") / r.seconds * 1e-9;
      const auto limit = static_cast<Limit>(static_cast<int>(Take(r, "limit")));
      r.peak = limit == Limit::kFp32 ? "fp32" : limit == Limit::kInt8 ? "int8" : "read";
      limits_.push_back(limit);
      results_.push_back(std::move(r));
      SetShare(results_.size() - 1);
      if (done_) done_(results_.back());
    }
  }

  std::vector<KernelBenchResult> Finish() {
    for (size_t i = 0; i < results_.size(); ++i) SetShare(i);
    return std::move(results_);
  }

 private:
  static double Take(KernelBenchResult& r, const char* name) {
    const auto node = r.more.extract(name);
    return node ? node.mapped() : 0;
  }
  void SetShare(size_t i) {
    KernelBenchResult& r = results_[i];
    const double best = peaks_.Best(limits_[i]);
    const double rate = (limits_[i] == Limit::kRead ? r.gbytes : r.gops) * 1e9;
    r.share_of_peak = best > 0 ? rate / best : 0;
  }

  const PeakMeter& peaks_;
  const std::function<void(const KernelBenchResult&)>& done_;
  std::vector<KernelBenchResult> results_;
  std::vector<Limit> limits_;
};

// Registers what is selected. (Google Benchmark's own filter sees decorated names and complains on
// stderr when nothing matches.)
Status Register(ExecContext& ctx, const KernelBenchOptions& options, PeakMeter& peaks) {
  std::vector<ModelShape> shapes;
  for (const ModelShape& shape : ModelShapes()) {
    if (options.shape.empty() || options.shape == shape.name) shapes.push_back(shape);
  }
  if (shapes.empty()) {
    std::string known;
    for (const ModelShape& shape : ModelShapes()) known += std::string(" ") + shape.name;
    return InvalidArgument(
        fmt::format("there is no shape '{}'; there are{}", options.shape, known));
  }
  std::regex filter;
  try {
    filter = std::regex(options.filter.empty() ? "." : options.filter, std::regex::extended);
  } catch (const std::regex_error& e) {
    return InvalidArgument(
        fmt::format("'{}' is not a regular expression: {}", options.filter, e.what()));
  }
  int64_t selected = 0;
  const Suite suite{ctx, peaks, std::move(shapes), options.min_seconds, filter, selected};
  benchmark::ClearRegisteredBenchmarks();
  RegisterPacked(suite);
  RegisterDense(suite);
  RegisterAttention(suite);
  RegisterHeadLoss(suite);
  RegisterElements(suite);
  if (selected > 0) return Status::Ok();
  return InvalidArgument(fmt::format("no benchmark's name matches '{}'", options.filter));
}

}  // namespace

Result<KernelBenchReport> RunKernelBenchmarks(
    ExecContext& ctx, const KernelBenchOptions& options,
    const std::function<void(const KernelBenchResult&)>& done) {
  PeakMeter peaks(ctx);
  EW_RETURN_IF_ERROR(Register(ctx, options, peaks));
  Collector collector(peaks, done);
  benchmark::RunSpecifiedBenchmarks(&collector, ".");
  benchmark::ClearRegisteredBenchmarks();
  KernelBenchReport report;
  report.results = collector.Finish();
  report.peaks = peaks.peaks();
  return report;
}

}  // namespace edgewise::bench
