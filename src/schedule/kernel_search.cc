#include "schedule/kernel_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>
#include <span>

#include "base/aligned_buffer.h"
#include "base/checked.h"
#include "base/median.h"
#include "base/rng.h"
#include "io/env.h"
#include "io/json.h"
#include "kernels/packed/int8_table.h"
#include "kernels/packed/linear.h"
#include "kernels/packed/packed_matrix.h"
#include "schedule/measure.h"

namespace edgewise::schedule {
namespace {

constexpr int64_t kTileCounts[] = {1, 2, 4};
constexpr int64_t kRowCounts[] = {32, 64, 128, 256, 512};
// Rounds in which candidates are measured in turn, so that what else the machine does meets all of
// them alike. Short products get more rounds, since one disturbance is a larger share of them.
constexpr int kFewestRounds = 11, kMostRounds = 500;
constexpr double kEnoughSeconds = 0.04;
// Of the cuts and orders measured, those whose prefetch distance is tried.
constexpr size_t kRefined = 3;
// Those that are timed once more, and how often: of the refined, and of all candidates.
constexpr size_t kCompared = 4;
constexpr int kComparedRounds = 25;
constexpr double kComparedSeconds = 0.15;

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

  // Seconds of each, null being the kernel's default: they run in turn, and a machine whose speed
  // changes does so for all of a round. So medians over the rounds of what each took of its round,
  // where they come in any order, since one finds the caches as another left them.
  std::vector<double> Measure(const std::vector<const ProductTiling*>& tilings,
                              int fewest = kFewestRounds, double enough = kEnoughSeconds) {
    const size_t n = tilings.size();
    std::vector<size_t> order(n);
    std::iota(order.begin(), order.end(), size_t{0});
    std::vector<std::vector<double>> shares(n);
    std::vector<double> means;
    double spent = 0;  // on each of them
    for (int round = 0; round <= kMostRounds && (round <= fewest || spent < enough); ++round) {
      std::vector<double> took(n);
      double all = 0;
      for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[shuffle_.Block(turn_++)[0] % i]);
      for (size_t i : order) {
        w_.set_tiling(tilings[i] != nullptr ? *tilings[i] : ProductTiling{});
        const double start = Now();
        kernels::PackedForward(ctx_, tokens_, x_.data(), w_.cols(), w_, {0, w_.rows()}, nullptr,
                               y_.data(), w_.rows(), kernels::Accumulate::kOverwrite);
        took[i] = Now() - start;
        all += took[i];
      }
      if (round == 0) continue;
      const double mean = all / static_cast<double>(n);
      means.push_back(mean);
      for (size_t i = 0; i < n; ++i) shares[i].push_back(took[i] / mean);
      spent += mean;
    }
    const double mean = Median(means);
    std::vector<double> seconds;
    for (const auto& of_one : shares) seconds.push_back(mean * Median(of_one));
    return seconds;
  }

 private:
  ExecContext& ctx_;
  kernels::PackedMatrix w_;
  int64_t tokens_;
  FloatBuffer x_, y_;
  Rng shuffle_{4, RngStream::kTest};
  uint64_t turn_ = 0;
};

}  // namespace

double PredictTiling(const kernels::PackedFormat& f, int64_t tokens, const ProductTiling& t,
                     const CpuInfo& cpu, int threads) {
  // In units of one multiply-add: what unpacking an element costs beside it, what a line that is
  // not in the level 2 cache costs, and how much of that is left when it was asked for before.
  // Orders of magnitude: the best few are measured anyway.
  constexpr double kUnpack = 12, kDensePerElement = 2, kMiss = 1000, kAsked = 0.5, kTask = 20000;
  constexpr double kRoom = 0.65;  // of the level 2 cache
  const auto rows = static_cast<double>(std::min(t.task_rows, tokens));
  const int64_t row_tasks = CeilDiv(tokens, std::min(t.task_rows, tokens));
  const double width = static_cast<double>(t.tiles * kernels::kTileRows);
  const double panels = static_cast<double>(CeilDiv(f.rows, t.tiles * kernels::kTileRows));
  const double cols = static_cast<double>(f.cols);
  const bool sparse = f.structure != kernels::Structure::kDense;
  const bool rows_inside = t.order == kernels::LoopOrder::kRows;
  double task = rows * width * cols;
  task += width * cols * (sparse ? kUnpack : kDensePerElement) * 8;
  // Rows of X that a thread comes back to stay in its level 2 cache, if there is room for them.
  // With rows inside these are those of every threads-th task; where there are as many row tasks as
  // threads, each keeps its own. X lies in the order of memory, which the processor asks for
  // itself.
  const double own = rows_inside ? static_cast<double>(CeilDiv(row_tasks, threads)) : 1;
  const double x_lines = rows * cols / 64;
  const double w_lines = width * cols * static_cast<double>(f.bits) / 8 / 64;
  const double panel = static_cast<double>(kernels::kMaxSegmentCols) * width;
  const double working = own * rows * cols + rows * width * 4 + 64 * w_lines + panel;
  if (working > kRoom * static_cast<double>(cpu.l2_bytes)) task += kMiss * kAsked * x_lines;
  // A panel of W is fetched for every task, or once for those of a thread that follow each other.
  const double fetched =
      rows_inside ? std::min(1.0, 1.0 * threads / static_cast<double>(row_tasks)) : 1;
  task += kMiss * (t.ahead > 0 && !sparse ? kAsked : 1) * w_lines * fetched;
  // A panel's activations are read into registers again for every tile.
  task += kTask + 24 * rows * cols / (width * 4);
  const double tasks = static_cast<double>(row_tasks) * panels;
  // The last round of tasks may leave threads idle, the more so where one is slower than others.
  constexpr double kTail = 0.2;
  const double rounds =
      std::max(tasks / threads, static_cast<double>(CeilDiv(static_cast<int64_t>(tasks), threads)));
  // And every thread fetches what it sees of X for the first time: all of it, or its own rows.
  const double seen = (rows_inside ? own * rows : static_cast<double>(tokens)) * cols / 64;
  return (task * (rounds + kTail) + kMiss * kAsked * seen) * 1e-12;
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

namespace {

bool Faster(const TilingCandidate* a, const TilingCandidate* b) { return a->seconds < b->seconds; }

void Time(Meter& meter, std::span<TilingCandidate* const> some) {
  std::vector<const ProductTiling*> tilings;
  for (const TilingCandidate* c : some) tilings.push_back(&c->tiling);
  const std::vector<double> seconds = meter.Measure(tilings);
  for (size_t i = 0; i < some.size(); ++i) some[i]->seconds = seconds[i];
}

// The least of many timings is too low by what favoured it, so the fastest few are timed anew,
// beside what the kernel does by itself.
void Choose(Meter& meter, std::vector<TilingCandidate*> from, KernelSearchResult* r) {
  std::stable_sort(from.begin(), from.end(), Faster);
  from.resize(std::min(from.size(), kCompared));
  std::vector<const ProductTiling*> tilings = {nullptr};
  for (const TilingCandidate* c : from) tilings.push_back(&c->tiling);
  const std::vector<double> seconds = meter.Measure(tilings, kComparedRounds, kComparedSeconds);
  const auto best = std::min_element(seconds.begin(), seconds.end());
  r->default_seconds = seconds[0];
  r->chosen_seconds = *best;
  if (best != seconds.begin()) r->chosen = *tilings[static_cast<size_t>(best - seconds.begin())];
}

// The choice against the fastest of all, once more timed anew, and with the next fastest, one of
// which may be the best in truth.
void Compare(Meter& meter, KernelSearchResult* r) {
  std::vector<TilingCandidate*> fastest;
  for (TilingCandidate& c : r->candidates) fastest.push_back(&c);
  std::stable_sort(fastest.begin(), fastest.end(), Faster);
  fastest.resize(std::min(fastest.size(), kCompared));
  std::vector<const ProductTiling*> tilings = {nullptr, &r->chosen};
  for (const TilingCandidate* c : fastest) tilings.push_back(&c->tiling);
  const std::vector<double> seconds = meter.Measure(tilings, kComparedRounds, kComparedSeconds);
  r->default_seconds = seconds[0];
  r->chosen_seconds = seconds[1];
  r->exhaustive_seconds = *std::min_element(seconds.begin(), seconds.end());
}

}  // namespace

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
  Meter meter(ctx, std::move(w), options.tokens);
  if (options.exhaustive) {
    std::vector<TilingCandidate*> all;
    for (TilingCandidate& c : r.candidates) all.push_back(&c);
    Time(meter, all);
  }
  // First cut and order, by the model's ranking and with weights fetched well ahead; then the
  // distances of those that came out best.
  const bool dense = format.structure == kernels::Structure::kDense;
  const int64_t ahead = dense ? kernels::kMostAhead : ProductTiling{}.ahead;
  std::vector<TilingCandidate*> some;
  for (TilingCandidate& c : r.candidates) {
    if (std::ssize(some) < options.measure && c.tiling.ahead == ahead) {
      some.push_back(&c);
    }
  }
  if (!options.exhaustive) Time(meter, some);
  std::stable_sort(some.begin(), some.end(), Faster);
  std::vector<TilingCandidate*> last;
  for (size_t i = 0; i < std::min(kRefined, some.size()); ++i) {
    for (TilingCandidate& c : r.candidates) {
      ProductTiling same = c.tiling;
      same.ahead = some[i]->tiling.ahead;
      if (same == some[i]->tiling) last.push_back(&c);
    }
  }
  r.measured = static_cast<int>(some.size() + last.size() - std::min(kRefined, some.size()));
  if (!options.exhaustive) Time(meter, last);
  Choose(meter, last, &r);
  if (options.exhaustive) Compare(meter, &r);
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
