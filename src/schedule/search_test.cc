// Plans are sound, fit, and are never slower than fixed orders; the checker finds what is broken.
#include "schedule/search.h"

#include <gtest/gtest.h>

#include "schedule/check.h"
#include "schedule/cost.h"
#include "schedule/measure.h"
#include "schedule/timeline_svg.h"

namespace edgewise::schedule {
namespace {

using plan::Device;
using plan::KernelKind;
using plan::Plan;
using plan::Workload;

Device MakeDevice(double gops, double disk_gbps) {
  Device d;
  d.name = "test";
  d.levels = {
      {"l1", 32768, 100, 100, 0}, {"ram", 0, 20, 20, 0}, {"disk", 0, disk_gbps, disk_gbps, 0}};
  d.kernels = {{KernelKind::kLinearForward, 8, 0, false, 512, 64, 64, gops},
               {KernelKind::kLinearBackward, 8, 0, false, 512, 64, 64, gops / 2}};
  d.fp32_gflops = gops;
  return d;
}

// Layers of 1 MB; a token costs 1 Mop a layer and keeps 1000 bytes of it, 400 of them in the MLP,
// which is computed again for half of what the whole layer costs. With `mlp_bytes` a token that is
// in an MLP which is not kept takes those.
Result<Workload> Describe(int layers, const plan::Choice& choice, int64_t mlp_bytes = 0) {
  const int64_t tokens = choice.tokens;
  Workload w;
  w.tokens = tokens;
  w.micro_batches = choice.micro_batches;
  w.recompute = choice.recompute;
  if (choice.recompute != plan::Recompute::kNone) {
    w.scratch_bytes = mlp_bytes * std::min(tokens, choice.mlp_tokens);
  }
  constexpr double kTimes[] = {1, 1.25, 1.5};
  constexpr int64_t kKept[] = {1000, 600, 100};
  const auto form = static_cast<size_t>(choice.recompute);
  w.state_bytes = 1000000;
  const auto add = [&](int layer, bool backward) {
    plan::Stage s;
    s.name = std::string("layer ") + std::to_string(layer) + (backward ? " backward" : "");
    s.layer = s.unit = layer;
    s.backward = backward;
    plan::Op op;
    op.kind = backward ? KernelKind::kLinearBackward : KernelKind::kLinearForward;
    op.tokens = tokens;
    op.out = op.in = 1000;
    op.bits = 8;
    op.gops = 1e-3 * static_cast<double>(tokens) * (backward ? kTimes[form] : 1);
    s.ops = {op};
    if (!backward) s.kept_bytes = tokens * kKept[form];
    w.stages.push_back(s);
  };
  for (int l = 0; l < layers; ++l) {
    w.units.push_back({"layer " + std::to_string(l), 1000000});
    add(l, false);
  }
  for (int l = layers - 1; l >= 0; --l) add(l, true);
  return w;
}

DescribeFn Layers(int layers) {
  return [layers](const plan::Choice& choice) { return Describe(layers, choice); };
}

TEST(Search, PlansAreSoundAndNeverSlowerThanFixedOrders) {
  int fit = 0, better = 0;
  for (const double disk : {0.05, 1.0, 100.0}) {
    for (const int64_t limit : {int64_t{3'500'000}, int64_t{5'000'000}, int64_t{50'000'000}}) {
      for (const int64_t micro : {1, 4, 40}) {
        const Device d = MakeDevice(100, disk);
        SearchOptions o;
        o.memory_limit = limit;
        o.max_tokens = 128;
        o.tokens = 128 * micro;
        const Result<Plan> plan = Search(d, Layers(6), o);
        if (!plan.ok()) {
          EXPECT_EQ(plan.status().code(), StatusCode::kOutOfMemory);
          continue;
        }
        ++fit;
        EXPECT_LE(plan->predicted_peak_bytes, limit);
        const Status sound = CheckPlan(*plan);
        EXPECT_TRUE(sound.ok()) << sound.message();
        // Nothing is faster than a perfect overlap of its streams.
        EXPECT_GE(plan->predicted_seconds, plan->streams.slowest() * (1 - 1e-9));
        for (const int64_t fixed : {int64_t{1}, micro}) {
          o.group = fixed;
          const Result<Plan> other = Search(d, Layers(6), o);
          if (!other.ok()) continue;
          EXPECT_LE(plan->predicted_seconds, other->predicted_seconds * (1 + 1e-9));
          better += plan->predicted_seconds < other->predicted_seconds * 0.99;
        }
      }
    }
  }
  EXPECT_GT(fit, 15);
  EXPECT_GT(better, 0);
}

TEST(Search, OfPlansAsFastAsFarAsPredictionsTellTakesTheOneThatMovesLeast) {
  int fewer = 0;
  for (const double disk : {0.05, 1.0, 100.0}) {
    for (const int64_t limit : {int64_t{3'500'000}, int64_t{5'000'000}, int64_t{50'000'000}}) {
      const Device d = MakeDevice(100, disk);
      SearchOptions o;
      o.memory_limit = limit;
      o.max_tokens = 128;
      o.tokens = 128 * 8;
      const Result<Plan> fastest = Search(d, Layers(6), o);
      if (!fastest.ok()) continue;
      o.uncertainty = 0.05;
      const Result<Plan> plan = Search(d, Layers(6), o);
      ASSERT_TRUE(plan.ok()) << plan.status().message();
      EXPECT_TRUE(CheckPlan(*plan).ok());
      EXPECT_LE(plan->predicted_seconds, fastest->predicted_seconds * 1.05 * (1 + 1e-9));
      EXPECT_LE(plan->loaded_bytes + plan->stored_bytes,
                fastest->loaded_bytes + fastest->stored_bytes);
      EXPECT_LE(plan->predicted_peak_bytes, limit);
      fewer += plan->loaded_bytes < fastest->loaded_bytes;
    }
  }
  EXPECT_GT(fewer, 0);
}

TEST(Search, SaysWhichLimitWorks) {
  SearchOptions o;
  o.memory_limit = 1'000'000;
  o.tokens = o.max_tokens = 256;
  const Device d = MakeDevice(100, 1);
  const Result<Plan> plan = Search(d, Layers(4), o);
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().code(), StatusCode::kOutOfMemory);
  const std::string& text = plan.status().message();
  const size_t at = text.find("--memory ");
  ASSERT_NE(at, std::string::npos) << text;
  o.memory_limit = std::stoll(text.substr(at + 9)) << 20;
  EXPECT_TRUE(Search(d, Layers(4), o).ok());
  // The smallest one: a mebibyte less does not do.
  o.memory_limit -= int64_t{1} << 20;
  EXPECT_FALSE(Search(d, Layers(4), o).ok());
}

TEST(Search, KeepsWeightsThatFit) {
  SearchOptions o;
  o.memory_limit = 100'000'000;
  o.tokens = o.max_tokens = 256;
  const Device d = MakeDevice(100, 1);
  const Result<Plan> plan = Search(d, Layers(4), o);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->loaded_bytes, 0);
  EXPECT_EQ(plan->streams.load, 0);
  EXPECT_NE(TimelineSvg(*plan).find("</svg>"), std::string::npos);
}

// Pieces on disk make plans that would not fit otherwise, and only where they are needed or clearly
// faster when the disk is to be spared.
TEST(Search, SpillsWhereItIsNeededOrClearlyFaster) {
  const DescribeFn describe = [](const plan::Choice& choice) -> Result<Workload> {
    EW_ASSIGN(Workload w, Describe(8, choice));
    w.micro_bytes = choice.tokens * 50;
    w.slot_bytes = plan::kSpillSlots * w.stages[0].kept_bytes;
    return w;
  };
  for (const int64_t micro : {1, 4}) {
    SearchOptions o;
    o.tokens = 512 * micro;
    o.max_tokens = 512;
    o.split_batches = false;
    o.recompute = {plan::Recompute::kNone, plan::Recompute::kLayer};
    const auto search = [&](Use spill, double disk) {
      o.spill = spill;
      return Search(MakeDevice(100, disk), describe, o);
    };
    // One layer, a state of 1 MB and what a micro-batch holds: 8 recomputed layers keep 0.4 MB.
    o.memory_limit = 2'000'000 + 8 * 51'200 + 512 * 50 - 1;
    EXPECT_FALSE(search(Use::kNever, 1).ok());
    for (const Use spill : {Use::kAuto, Use::kAlways}) {
      const Result<Plan> plan = search(spill, 1);
      ASSERT_TRUE(plan.ok()) << plan.status().message();
      EXPECT_GT(plan->stored_bytes, 0);
      EXPECT_LE(plan->predicted_peak_bytes, o.memory_limit);
      EXPECT_GE(plan->predicted_seconds, plan->streams.slowest() * (1 - 1e-9));
      const Status sound = CheckPlan(*plan);
      EXPECT_TRUE(sound.ok()) << sound.message();
      for (const auto change :
           {+[](plan::Visit& v) { v.store = false; }, +[](plan::Visit& v) { v.fetch = false; },
            +[](plan::Visit& v) { v.store = v.fetch = true; }}) {
        Plan broken = *plan;
        for (plan::Visit& v : broken.visits) change(v);
        EXPECT_FALSE(CheckPlan(broken).ok());
      }
    }
    // Nothing smaller works, and it says so.
    o.memory_limit = 1'500'000;
    const Result<Plan> refused = search(Use::kAuto, 1);
    ASSERT_FALSE(refused.ok());
    const std::string& text = refused.status().message();
    const int64_t works = std::stoll(text.substr(text.find("--memory ") + 9)) << 20;
    EXPECT_EQ(works, int64_t{3} << 20);  // 2.1 MB, in mebibytes
    o.memory_limit = works;
    EXPECT_TRUE(search(Use::kAuto, 1).ok());
    // Where all fits nothing is written, even where it costs nothing.
    o.memory_limit = 50'000'000;
    EXPECT_EQ(search(Use::kAuto, 1000)->stored_bytes, 0);
    // Recomputing takes half as long again as a fast disk does.
    o.memory_limit = 2'000'000 + 8 * 51'200 + 3 * 512'000;
    const Result<Plan> never = search(Use::kNever, 1000), fast = search(Use::kAuto, 1000);
    ASSERT_TRUE(never.ok() && fast.ok());
    EXPECT_NE(never->choice.recompute, plan::Recompute::kNone);
    EXPECT_GT(fast->stored_bytes, 0);
    EXPECT_LT(fast->predicted_seconds, (1 - kClearly) * never->predicted_seconds);
    // Through a slow one it is not worth it (unless weights come from there, too, and want the
    // room).
    if (micro == 1) {
      EXPECT_EQ(search(Use::kAuto, 0.2)->stored_bytes, 0);
    }
  }
}

// A little too small for everything: the MLPs go first, and in smaller pieces only where that fits
// or reads less.
TEST(Search, ComputesAgainWhatItMust) {
  SearchOptions o;
  o.tokens = o.max_tokens = 1024;
  o.split_batches = false;
  const auto search = [&](int64_t limit) {
    o.memory_limit = limit;
    return Search(
        MakeDevice(100, 1e-4),
        [](const plan::Choice& c) { return Describe(8, c, /*mlp_bytes=*/1000); }, o);
  };
  const int64_t all = 8'000'000 + 1'000'000, kept = 8 * 1024;
  const auto form = [&](int64_t limit) {
    const Result<Plan> plan = search(limit);
    EXPECT_TRUE(plan.ok()) << plan.status().message();
    EXPECT_TRUE(CheckPlan(*plan).ok());
    EXPECT_EQ(plan->loaded_bytes, 0);
    return std::pair(plan->choice.recompute, plan->choice.mlp_tokens);
  };
  using plan::Recompute;
  EXPECT_EQ(form(all + kept * 1000), std::pair(Recompute::kNone, int64_t{512}));
  EXPECT_EQ(form(all + kept * 1000 - 1), std::pair(Recompute::kMlp, int64_t{512}));
  EXPECT_EQ(form(all + kept * 600 + 512'000 - 1), std::pair(Recompute::kMlp, int64_t{256}));
  EXPECT_EQ(form(all + kept * 600 + 256'000 - 1), std::pair(Recompute::kLayer, int64_t{512}));
  EXPECT_EQ(form(all + kept * 100 + 512'000 - 1), std::pair(Recompute::kLayer, int64_t{256}));
  // Below that weights are read; the least of all is one of them.
  const Result<Plan> least = search(2'000'000 + kept * 100 + 256'000);
  ASSERT_TRUE(least.ok()) << least.status().message();
  EXPECT_EQ(least->choice.mlp_tokens, 256);
  EXPECT_FALSE(search(2'000'000 + kept * 100 + 256'000 - 1).ok());
}

TEST(CheckPlan, FindsWhatIsBroken) {
  SearchOptions o;
  o.memory_limit = 4'000'000;
  o.tokens = 512;
  o.max_tokens = 128;
  const Device d = MakeDevice(100, 1);
  const Result<Plan> good = Search(d, Layers(5), o);
  ASSERT_TRUE(good.ok()) << good.status().message();
  ASSERT_TRUE(CheckPlan(*good).ok());
  const auto broken = [&](auto change) {
    Plan p = *good;
    change(p);
    return !CheckPlan(p).ok();
  };
  EXPECT_TRUE(broken([](Plan& p) { p.visits.pop_back(); }));
  EXPECT_TRUE(broken([](Plan& p) { p.visits.push_back(p.visits.back()); }));
  EXPECT_TRUE(broken([](Plan& p) { std::swap(p.visits.front(), p.visits.back()); }));
  EXPECT_TRUE(broken([](Plan& p) { p.visits[0].stage = 99; }));
  EXPECT_TRUE(broken([](Plan& p) { p.choice.weight_budget = 1; }));
  EXPECT_TRUE(broken([](Plan& p) { p.predicted_peak_bytes = 10; }));
  EXPECT_TRUE(broken([](Plan& p) {
    p.resident.clear();
    for (plan::Visit& v : p.visits) v.load.clear();
  }));
  EXPECT_TRUE(broken([](Plan& p) {
    for (plan::Visit& v : p.visits) v.evict.clear();
  }));
}

TEST(Cost, InterpolatesRates) {
  Device d = MakeDevice(100, 1);
  d.kernels = {{KernelKind::kLinearForward, 4, 0, false, 512, 100, 100, 100},
               {KernelKind::kLinearForward, 4, 0, false, 512, 1000, 1000, 200},
               {KernelKind::kLinearForward, 4, 0.5, true, 512, 100, 100, 200},
               {KernelKind::kLinearForward, 4, 0, false, 1, 100, 100, 10}};
  plan::Op op;
  op.tokens = 512;
  op.bits = 4;
  op.out = op.in = 100;
  op.gops = 1;
  EXPECT_DOUBLE_EQ(Rate(d, op), 100);
  op.bits = 3;  // the nearest that is known
  EXPECT_DOUBLE_EQ(Rate(d, op), 100);
  op.out = op.in = 10000;  // no extrapolation
  EXPECT_DOUBLE_EQ(Rate(d, op), 200);
  op.out = op.in = 100;
  op.sparsity = 0.25;
  op.blocks = true;  // half way between 10 ms and 5 ms
  EXPECT_NEAR(Rate(d, op), 1 / 0.0075, 1e-6);
  op.sparsity = 0;
  op.tokens = 1;
  EXPECT_DOUBLE_EQ(Rate(d, op), 10);
}

TEST(Cost, TakesAnEntryOfTheVerySize) {
  Device d = MakeDevice(100, 1);
  plan::Op op;
  op.kind = KernelKind::kLoraBackward;
  op.tokens = 100;
  op.out = 300;
  op.in = 200;
  op.rank = 4;
  op.gops = 1;
  EXPECT_EQ(ExactRate(d, op), nullptr);
  d.kernels.push_back({KernelKind::kLora, 32, 0, false, 512, 64, 64, 5, 8});
  EXPECT_DOUBLE_EQ(Rate(d, op), 5);  // the nearest kind that is known
  d.kernels.push_back({KernelKind::kLoraBackward, 32, 0, false, 100, 300, 200, 7, 4});
  EXPECT_DOUBLE_EQ(Rate(d, op), 7);
  op.rank = 5;
  EXPECT_EQ(ExactRate(d, op), nullptr);
}

// Every kind of operation can be measured, and is measured once.
TEST(MeasureMissing, FillsTheProfile) {
  const auto ctx = ExecContext::Create({.threads = 2, .isa = nullptr});
  ASSERT_TRUE(ctx.ok());
  Workload w;
  plan::Stage stage;
  for (size_t kind = 0; kind < plan::kKernelKinds; ++kind) {
    plan::Op op;
    op.kind = static_cast<KernelKind>(kind);
    op.tokens = 16;
    op.out = 64;
    op.in = 32;
    op.rank = 16;
    op.bits = op.kind == KernelKind::kWeightGradient ? 32 : 4;
    op.gops = 1;
    stage.ops.push_back(op);
    stage.ops.push_back(op);
  }
  w.stages = {stage};
  Device d = BareDevice(**ctx);
  ASSERT_TRUE(MeasureMissing(**ctx, w, &d).ok());
  // The optimiser's bytes go at the memory's rate.
  EXPECT_EQ(d.kernels.size(), plan::kKernelKinds - 1);
  for (const plan::Op& op : stage.ops) {
    if (op.kind == KernelKind::kOptimizer) continue;
    ASSERT_NE(ExactRate(d, op), nullptr) << plan::KernelKindName(op.kind);
    EXPECT_GT(CostOf(d, op).seconds, 0) << plan::KernelKindName(op.kind);
  }
}

// On a described device, whose products also take the time of what they move.
TEST(Cost, PartsOfAProductTogetherTakeWhatItTakes) {
  Device d = MakeDevice(100, 1);
  d.simulated = true;
  d.levels[0].bytes = 1 << 20;
  d.levels[0].read_gbps = 0.5;
  plan::Op op;
  op.tokens = 64;
  op.out = 4096;
  op.in = 512;
  op.weight_bytes = op.out * op.in;
  op.gops = 2e-9 * 64 * 4096 * 512;
  const OpCost whole = CostOf(d, op);
  EXPECT_GT(whole.memory_seconds, whole.compute_seconds);
  op.share = 0.125;
  op.gops *= op.share;
  const OpCost part = CostOf(d, op);
  EXPECT_DOUBLE_EQ(8 * part.memory_seconds, whole.memory_seconds);
  EXPECT_DOUBLE_EQ(8 * part.seconds, whole.seconds);
}

// Against every tile size, by brute force, for the same cost formula's bounds.
TEST(Cost, TilingMovesAtLeastEveryOperandOnce) {
  plan::Op op;
  op.tokens = 512;
  op.out = 4096;
  op.in = 4096;
  op.weight_bytes = 4096 * 4096 / 2;
  const double once = 4096.0 * 4096 / 2 + 512.0 * 4096 + 512.0 * 4096 * 4;
  double last = 1e18;
  for (int64_t sram = 64 << 10; sram <= 64 << 20; sram *= 4) {
    const Tiling t = BestTiling(op, sram, 1);
    EXPECT_GE(t.bytes, once);
    EXPECT_LE(t.bytes, last);  // more room never moves more
    last = t.bytes;
  }
  EXPECT_DOUBLE_EQ(last, once);
}

}  // namespace
}  // namespace edgewise::schedule
