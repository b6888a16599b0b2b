// edgewise search-kernels: how products with packed weights are best cut into tasks here.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <set>

#include "cli/commands.h"
#include "model/config.h"
#include "model/weights.h"
#include "report/table.h"
#include "schedule/kernel_search.h"
#include "schedule/measure.h"

namespace edgewise::cli {
namespace {

OrderedJson Candidate(const schedule::TilingCandidate& c) {
  return {{"tiles", c.tiling.tiles},
          {"task_rows", c.tiling.task_rows},
          {"order", schedule::LoopOrderName(c.tiling.order)},
          {"ahead", c.tiling.ahead},
          {"predicted_seconds", c.predicted_seconds},
          {"seconds", c.seconds}};
}

class SearchKernels : public Command {
 public:
  std::string name() const override { return "search-kernels"; }
  std::string summary() const override { return "Find the best tilings for packed weights here"; }

  void Declare(CLI::App& app) override {
    std::string shapes;
    for (const std::string& shape : model::NamedShapes()) shapes += " " + shape;
    app.add_option("--shape,--shapes", shapes_, "Some of:" + shapes)->delimiter(',');
    app.add_option("--bits", bits_, "Bits of a weight")->delimiter(',')->capture_default_str();
    app.add_option("--sparsity", sparsity_, "0, or 0.5 for half of the weights zero")
        ->delimiter(',')
        ->capture_default_str();
    app.add_option("--tokens", options_.tokens, "Rows of a product")
        ->check(CLI::Range(32, 4096))
        ->capture_default_str();
    app.add_option("--measure", options_.measure, "Cuts and orders measured, best prediction first")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_flag("--exhaustive", options_.exhaustive, "Measure all candidates, to compare");
  }

  Status Run(Invocation& inv) override {
    if (shapes_.empty()) return InvalidArgument("name at least one --shape");
    EW_ASSIGN(ExecContext * ctx, inv.Exec());
    const std::string path = schedule::TuningPath(*ctx, EDGEWISE_VERSION);
    schedule::KernelTuning tuning;
    // What was found for other forms stays; a file that cannot be read is made anew.
    if (!schedule::LoadTuning(path, &tuning).ok()) tuning = {};
    report::Table table({"out", "in", "bits", "zeros", "tiles", "rows", "inner", "ahead", "us",
                         "default us", "best us", "over best"});
    OrderedJson rows = OrderedJson::array();
    std::set<schedule::ProductKey> seen;
    int measured = 0;
    size_t candidates = 0;
    double worst = 0;
    for (const std::string& shape : shapes_) {
      Result<model::ModelConfig> config = model::NamedShape(shape);
      if (!config.ok()) return InvalidArgument("--shape: " + config.status().message());
      for (model::LinearKind kind : model::kAllLinears) {
        for (int bits : bits_) {
          for (double sparsity : sparsity_) {
            if (inv.stop().load()) return {StatusCode::kInterrupted, "stopped"};
            const model::LinearShape s = model::ShapeOf(*config, kind);
            kernels::PackedFormat f;
            f.rows = s.out;
            f.cols = s.in;
            f.bits = bits;
            f.group = sparsity > 0 ? 0 : 128;
            if (sparsity > 0) f.structure = kernels::Structure::kUnstructured;
            if (!seen.insert({f.rows, f.cols, f.bits, static_cast<int>(f.structure)}).second)
              continue;
            EW_ASSIGN(const schedule::KernelSearchResult r,
                      schedule::SearchKernel(*ctx, f, options_));
            tuning.Set(r.key, r.chosen);
            measured += r.measured;
            candidates += r.candidates.size();
            const double best = options_.exhaustive ? r.exhaustive_seconds : r.chosen_seconds;
            const double over = r.chosen_seconds / best - 1;
            worst = std::max(worst, over);
            table.AddRow({fmt::format("{}", s.out), fmt::format("{}", s.in),
                          fmt::format("{}", bits), fmt::format("{:.0f}%", 100 * sparsity),
                          fmt::format("{}", r.chosen.tiles), fmt::format("{}", r.chosen.task_rows),
                          std::string(schedule::LoopOrderName(r.chosen.order)),
                          fmt::format("{}", r.chosen.ahead),
                          fmt::format("{:.0f}", 1e6 * r.chosen_seconds),
                          fmt::format("{:.0f}", 1e6 * r.default_seconds),
                          fmt::format("{:.0f}", 1e6 * best), fmt::format("{:.1f}%", 100 * over)});
            OrderedJson all = OrderedJson::array();
            for (const schedule::TilingCandidate& c : r.candidates) {
              if (c.seconds > 0) all.push_back(Candidate(c));
            }
            rows.push_back({{"out", s.out},
                            {"in", s.in},
                            {"bits", bits},
                            {"sparsity", sparsity},
                            {"tiles", r.chosen.tiles},
                            {"task_rows", r.chosen.task_rows},
                            {"order", schedule::LoopOrderName(r.chosen.order)},
                            {"ahead", r.chosen.ahead},
                            {"seconds", r.chosen_seconds},
                            {"default_seconds", r.default_seconds},
                            {"best_seconds", best},
                            {"candidates", r.candidates.size()},
                            {"measured", r.measured},
                            {"timings", std::move(all)}});
          }
        }
      }
      inv.console().Log(shape + " done");
    }
    EW_RETURN_IF_ERROR(schedule::SaveTuning(tuning, path));
    OrderedJson json;
    json["products"] = std::move(rows);
    json["measured"] = measured;
    json["candidates"] = candidates;
    json["worst_over_best"] = worst;
    json["path"] = path;
    inv.console().SetResult(
        std::move(json),
        table.Render() +
            fmt::format("\n{} of {} candidates measured to choose; tiles 0: the kernel's own "
                        "cut; kept in {}\n",
                        measured, candidates, path));
    return Status::Ok();
  }

 private:
  std::vector<std::string> shapes_;
  std::vector<int> bits_ = {8, 4, 3};
  std::vector<double> sparsity_ = {0, 0.5};
  schedule::KernelSearchOptions options_;
};

}  // namespace

std::unique_ptr<Command> MakeSearchKernels() { return std::make_unique<SearchKernels>(); }

}  // namespace edgewise::cli
