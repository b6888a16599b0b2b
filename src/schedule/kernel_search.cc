#include "schedule/kernel_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/aligned_buffer.h"
#include "base/checked.h"
#include "base/rng.h"
#include "io/env.h"
#include "io/json.h"
#include "kernels/packed/linear.h"
#include "kernels/packed/packed_matrix.h"
#include "schedule/measure.h"

namespace edgewise::schedule {
namespace {

constexpr int64_t kTileCounts[] = {1, 2, 4};
constexpr int64_t kRowCounts[] = {32, 64, 128, 256, 512};
// Rounds in which candidates are measured in turn, so that what else the machine does meets all of
// them alike. Short products get more rounds, since one disturbance is a larger share of them.
constexpr int kFewestRounds = 8, kMostRounds = 40;
constexpr double kEnoughSeconds = 0.02;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Result<kernels::PackedMatrix> RandomMatrix(const kernels::PackedFormat& f) {
  FloatBuffer w(f.rows * f.cols);
  Rng rng(1, RngStream::kTest);
  const int64_t drawn = std::min<int64_t>(f.rows, 64);
  const bool blocks = f.structure == kernels::Structure::kBlock;
  for (int64_t i = 0; i < drawn * f.cols; ++i) w[i] = rng.NextFloat() - 0.5f;
  for (int64_t i = 0; f.structure != kernels::Structure::kDense && i < drawn * f.cols; ++i) {
    const int64_t at = blocks ? i / f.cols / 16 * f.cols + i % f.cols / f.block_cols : i;
    if (Rng(2, RngStream::kTest).Block(static_cast<uint64_t>(at))[0] % 2 == 0) w[i] = 0;
  }
  for (int64_t r = drawn; r < f.rows; ++r) {
    std::copy_n(w.data() + (r % drawn) * f.cols, f.cols, w.data() + r * f.cols);
  }
  return kernels::Pack(f, w.data(), f.cols);
}

class Meter {
 public:
  Meter(ExecContext& ctx, kernels::PackedMatrix w, int64_t tokens)
      : ctx_(ctx),
        w_(std::move(w)),
        tokens_(tokens),
        x_(tokens * w_.cols()),
        y_(tokens * w_.rows()) {
    Rng rng(3, RngStream::kTest);
    for (float& v : x_.span()) v = rng.NextFloat() - 0.5f;
  }

  // Fastest of several runs of each, in turn; null: the kernel's default.
  std::vector<double> Measure(const std::vector<const ProductTiling*>& tilings) {
    std::vector<double> best(tilings.size(), 1e30);
    double spent = 0;  // on each of them
    for (int round = 0; round <= kMostRounds && (round <= kFewestRounds || spent < kEnoughSeconds);
         ++round) {
      const double began = Now();
      for (size_t i = 0; i < tilings.size(); ++i) {
        w_.set_tiling(tilings[i] != nullptr ? *tilings[i] : ProductTiling{});
        const double start = Now();
        kernels::PackedForward(ctx_, tokens_, x_.data(), w_.cols(), w_, {0, w_.rows()}, nullptr,
                               y_.data(), w_.rows(), kernels::Accumulate::kOverwrite);
        const double took = Now() - start;
        if (round > 0) best[i] = std::min(best[i], took);
      }
      spent += (Now() - began) / static_cast<double>(tilings.size());
    }
    return best;
  }

 private:
  ExecContext& ctx_;
  kernels::PackedMatrix w_;
  int64_t tokens_;
  FloatBuffer x_, y_;
};

}  // namespace

double PredictTiling(const kernels::PackedFormat& f, int64_t tokens, const ProductTiling& t,
                     const CpuInfo& cpu, int threads) {
  // In units of one multiply-add: what unpacking an element costs beside it, what a line that is
  // not in the level 2 cache costs, and how much of that is left when it was asked for before.
  // Orders of magnitude: the best few are measured anyway.
  constexpr double kUnpack = 12, kDensePerElement = 4, kMiss = 1000, kAsked = 0.25, kTask = 20000;
  const auto rows = static_cast<double>(std::min(t.task_rows, tokens));
  const double row_tasks = static_cast<double>(CeilDiv(tokens, std::min(t.task_rows, tokens)));
  const double width = static_cast<double>(t.tiles * kernels::kTileRows);
  const double panels = static_cast<double>(CeilDiv(f.rows, t.tiles * kernels::kTileRows));
  const double cols = static_cast<double>(f.cols);
  const bool sparse = f.structure != kernels::Structure::kDense;
  double task = rows * width * cols;
  task += width * cols * (sparse ? kUnpack : kDensePerElement) * 8;
  // What a task shares with the one before it stays in the level 2 cache, if there is room for it;
  // the rest is fetched: rows of X in the order of memory, which the processor asks for by itself.
  const double x_lines = rows * cols / 64;
  const double w_lines = width * cols * static_cast<double>(f.bits) / 8 / 64;
  const double working = rows * (cols + width * 4) + 64 * w_lines;
  const bool fits = working <= 0.75 * static_cast<double>(cpu.l2_bytes);
  const bool keeps_x = fits && (t.order == kernels::LoopOrder::kPanels || row_tasks == 1);
  const bool keeps_w = t.order == kernels::LoopOrder::kRows;
  task += keeps_x ? 0 : kMiss * kAsked * x_lines;
  task += keeps_w ? 0 : kMiss * (t.ahead > 0 && !sparse ? kAsked : 1) * w_lines;
  // A panel's activations are read into registers again for every tile.
  task += kTask + 16 * rows * cols / (width * 4);
  const double tasks = row_tasks * panels;
  // The last round of tasks may leave threads idle.
  const double rounds =
      std::max(tasks / threads, static_cast<double>(CeilDiv(static_cast<int64_t>(tasks), threads)));
  return task * rounds * 1e-12;
}

std::vector<ProductTiling> ListTilings(const kernels::PackedFormat& f, int64_t tokens) {
  std::vector<ProductTiling> list;
  const bool dense = f.structure == kernels::Structure::kDense;
  for (int64_t tiles : kTileCounts) {
    // Blocks are read one tile at a time.
    if (f.structure == kernels::Structure::kBlock && tiles > 1) continue;
    for (int64_t rows : kRowCounts) {
      if (rows > tokens && rows != kRowCounts[0]) continue;
      for (auto order : {kernels::LoopOrder::kPanels, kernels::LoopOrder::kRows}) {
        // Of one task a panel: both are the same.
        if (order == kernels::LoopOrder::kRows && rows >= tokens) continue;
        // Where sparse weights lie depends on the data.
        for (int64_t ahead = 0; ahead <= (dense ? kernels::kMostAhead : 0); ++ahead) {
          list.push_back({tiles, rows, order, dense ? ahead : ProductTiling{}.ahead});
        }
      }
    }
  }
  return list;
}

Result<KernelSearchResult> SearchKernel(ExecContext& ctx, const kernels::PackedFormat& format,
                                        const KernelSearchOptions& options) {
  EW_ASSIGN(kernels::PackedMatrix w, RandomMatrix(format));
  KernelSearchResult r;
  r.key = {format.rows, format.cols, format.bits, static_cast<int>(format.structure)};
  for (const ProductTiling& tiling : ListTilings(format, options.tokens)) {
    r.candidates.push_back(
        {tiling, PredictTiling(format, options.tokens, tiling, ctx.cpu(), ctx.threads())});
  }
  std::stable_sort(r.candidates.begin(), r.candidates.end(), [](const auto& a, const auto& b) {
    return a.predicted_seconds < b.predicted_seconds;
  });
  const size_t chosen_from = std::min(r.candidates.size(), static_cast<size_t>(options.measure));
  const size_t count = options.exhaustive ? r.candidates.size() : chosen_from;
  std::vector<const ProductTiling*> tilings = {nullptr};
  for (size_t i = 0; i < count; ++i) tilings.push_back(&r.candidates[i].tiling);
  Meter meter(ctx, std::move(w), options.tokens);
  const std::vector<double> seconds = meter.Measure(tilings);
  r.default_seconds = r.chosen_seconds = seconds[0];
  r.measured = static_cast<int>(chosen_from);
  for (size_t i = 0; i < count; ++i) {
    TilingCandidate& c = r.candidates[i];
    c.seconds = seconds[i + 1];
    if (i < chosen_from && c.seconds < r.chosen_seconds) {
      r.chosen_seconds = c.seconds;
      r.chosen = c.tiling;
    }
    if (options.exhaustive && (r.exhaustive_seconds == 0 || c.seconds < r.exhaustive_seconds)) {
      r.exhaustive_seconds = c.seconds;
      r.exhaustive = c.tiling;
    }
  }
  return r;
}

std::string_view LoopOrderName(kernels::LoopOrder order) {
  return order == kernels::LoopOrder::kRows ? "rows" : "panels";
}

std::string TuningPath(const ExecContext& ctx, std::string_view version) {
  const std::string device = DevicePath(ctx, version);
  return JoinPath(DirName(device), "kernels-" + BaseName(device));
}

Status SaveTuning(const KernelTuning& tuning, const std::string& path) {
  OrderedJson list = OrderedJson::array();
  for (const auto& [key, t] : tuning.all()) {
    list.push_back({{"out", key.out},
                    {"in", key.in},
                    {"bits", key.bits},
                    {"structure", key.structure},
                    {"tiles", t.tiles},
                    {"task_rows", t.task_rows},
                    {"order", LoopOrderName(t.order)},
                    {"ahead", t.ahead}});
  }
  EW_RETURN_IF_ERROR(PosixEnv().CreateDirs(DirName(path)));
  return WriteFileAtomic(PosixEnv(), path, DumpJson(OrderedJson{{"products", list}}, 1) + "\n");
}

Status LoadTuning(const std::string& path, KernelTuning* tuning) {
  if (!PosixEnv().Exists(path)) return Status::Ok();
  EW_ASSIGN(const Json json, ReadJsonFile(path));
  try {
    for (const Json& p : json.at("products")) {
      ProductTiling t = {p.at("tiles").get<int64_t>(), p.at("task_rows").get<int64_t>()};
      // (Neither was searched once.)
      const auto order = p.value("order", std::string(LoopOrderName(t.order)));
      t.ahead = p.value("ahead", t.ahead);
      if (order == LoopOrderName(kernels::LoopOrder::kRows)) t.order = kernels::LoopOrder::kRows;
      if (t.tiles < 0 || t.tiles > 4 || t.task_rows < 0 || t.task_rows > 4096 || t.ahead < 0 ||
          t.ahead > kernels::kMostAhead || order != LoopOrderName(t.order)) {
        return BadInput(fmt::format("{}: a tiling of {} tiles and {} rows, order {}, {} ahead",
                                    path, t.tiles, t.task_rows, order, t.ahead));
      }
      tuning->Set({p.at("out").get<int64_t>(), p.at("in").get<int64_t>(), p.at("bits").get<int>(),
                   p.at("structure").get<int>()},
                  t);
    }
  } catch (const nlohmann::json::exception& e) {
    return BadInput(fmt::format("{}: {}", path, e.what()));
  }
  return Status::Ok();
}

}  // namespace edgewise::schedule
