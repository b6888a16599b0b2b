#include "cli/bench_kernels.h"

#include <fmt/format.h>

namespace edgewise::cli {
namespace {

std::string Line(const bench::KernelBenchResult& r) {
  return fmt::format("{:58} {:10.1f} us {:9.1f} GOP/s {:7.2f} GB/s {:5.1f}% of {}\n", r.name,
                     r.seconds * 1e6, r.gops, r.gbytes, 100 * r.share_of_peak, r.peak);
}

}  // namespace

Status RunBenchKernels(Invocation& inv, const bench::KernelBenchOptions& options) {
  EW_ASSIGN(ExecContext * ctx, inv.Exec());
  EW_ASSIGN(const bench::KernelBenchReport report,
            bench::RunKernelBenchmarks(*ctx, options, [&](const bench::KernelBenchResult& r) {
              // As they come: a whole run takes long. (With --json as progress.)
              std::string line = Line(r);
              if (!inv.console().json()) {
                inv.console().Text(line);
                return;
              }
              line.pop_back();
              inv.console().Log(line);
            }));
  OrderedJson json;
  json["bench"] = "kernels";
  json["cpu"] = ctx->cpu().name;
  json["isa"] = IsaName(ctx->isa());
  json["threads"] = ctx->threads();
  json["peaks"] = {{"fp32_gflops", report.peaks.fp32_gflops},
                   {"int8_gops", report.peaks.int8_gops},
                   {"read_gbps", report.peaks.read_gbps}};
  OrderedJson results = OrderedJson::array();
  for (const bench::KernelBenchResult& r : report.results) {
    OrderedJson one;
    one["name"] = r.name;
    one["seconds"] = r.seconds;
    one["seconds_mean"] = r.seconds_mean;
    one["gops"] = r.gops;
    one["gbps"] = r.gbytes;
    one["peak"] = r.peak;
    one["share_of_peak"] = r.share_of_peak;
    for (const auto& [name, value] : r.more) one[name] = value;
    results.push_back(std::move(one));
  }
  json["results"] = std::move(results);
  inv.console().SetResult(std::move(json), "");
  return Status::Ok();
}

}  // namespace edgewise::cli
