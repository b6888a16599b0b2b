#include "tune/edge_method.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "tune/edge_method_test_util.h"
#include "tune/optimizer.h"
#include "tune/run_state.h"

namespace edgewise::tune {
namespace {

TEST_F(EdgeMethodTest, CachedAndUncachedRunsAgree) {
  for (TrunkMode mode : {TrunkMode::kFrozen, TrunkMode::kCumulative}) {
    SCOPED_TRACE(TrunkModeName(mode));
    auto plain = Make(Options(mode, ""));
    auto cached = Make(Options(mode, std::string(TrunkModeName(mode))));
    AdamW adam({}, plain->params());
    // Every step from the same parameters: sixty Adam steps apart, rounding grows without bound.
    for (int64_t step = 0; step < 60; ++step) {
      std::vector<int32_t> active, same;
      ASSERT_TRUE(plain->BeginStep(step, &active).ok());
      ASSERT_TRUE(cached->BeginStep(step, &same).ok());
      ASSERT_EQ(active, same);
      const auto d = static_cast<size_t>(step) % docs_.size();
      const TokenBatch batch = BatchOf(docs_, {d, (d + 5) % docs_.size()});
      const MicroContext context{step, 0, 7, 1.0 / static_cast<double>(batch.size())};
      const auto want = plain->Micro(batch, context), got = cached->Micro(batch, context);
      ASSERT_TRUE(want.ok() && got.ok());
      // fp32 states; only the tiling of the attention may differ: a few times 2^-24 per layer.
      EXPECT_NEAR(got->mean(), want->mean(), 1e-5) << step;
      double error = 0, square = 0;
      for (int32_t i : active) {
        const model::Parameter &p = plain->params()[static_cast<size_t>(i)],
                               &q = cached->params()[static_cast<size_t>(i)];
        for (int64_t k = 0; k < p.count; ++k) {
          const double e = static_cast<double>(p.grad[k]) - q.grad[k];
          error += e * e;
          square += static_cast<double>(p.grad[k]) * p.grad[k];
        }
      }
      EXPECT_LE(std::sqrt(error), 1e-4 * std::sqrt(square)) << step;
      adam.Step(*ctx_, active, 0.02, 1.0);
      for (int32_t i : active) {
        const model::Parameter &p = plain->params()[static_cast<size_t>(i)],
                               &q = cached->params()[static_cast<size_t>(i)];
        std::copy_n(p.value, p.count, q.value);
      }
    }
    // 12 documents and 2 trunk starts: each document once, not once per step.
    int64_t tokens = 0;
    for (const auto& d : docs_) tokens += static_cast<int64_t>(d.size());
    EXPECT_EQ(cached->trunk().computed_tokens(), tokens * (mode == TrunkMode::kFrozen ? 1 : 2));
    EXPECT_GT(plain->trunk().computed_tokens(), tokens);
    EXPECT_TRUE(cached->trunk().Complete());
    EXPECT_FALSE(plain->trunk().Complete());
  }
}

TEST_F(EdgeMethodTest, RecomputationCanBeChosenLaterAndChangesNoBit) {
  auto kept = Make(Options(TrunkMode::kFrozen, "kept"));
  auto recomputed = Make(Options(TrunkMode::kFrozen, "recomputed"));
  EXPECT_FALSE(kept->trunk().Complete());
  recomputed->SetRecompute(plan::Recompute::kLayer, model::kMlpRows);
  EXPECT_LT(recomputed->MemoryNeeded().activations, kept->MemoryNeeded().activations);
  std::vector<int32_t> active, same;
  ASSERT_TRUE(kept->BeginStep(0, &active).ok());
  ASSERT_TRUE(recomputed->BeginStep(0, &same).ok());
  const TokenBatch batch = BatchOf(docs_, {0, 3});
  const MicroContext context{0, 0, 7, 0.1};
  ASSERT_TRUE(kept->Micro(batch, context).ok() && recomputed->Micro(batch, context).ok());
  for (int32_t i : active) {
    const model::Parameter &p = kept->params()[static_cast<size_t>(i)],
                           &q = recomputed->params()[static_cast<size_t>(i)];
    ASSERT_EQ(std::memcmp(p.grad, q.grad, static_cast<size_t>(p.count) * sizeof(float)), 0);
  }
}

TEST_F(EdgeMethodTest, GroupsOfMicroBatchesChangeNoBit) {
  for (const char* cache : {"", "cached"}) {
    auto rows = Make(Options(TrunkMode::kFrozen, cache)),
         group = Make(Options(TrunkMode::kFrozen, ""));
    if (*cache != 0) group = Make(Options(TrunkMode::kFrozen, "other"));
    group->SetGroup(3);
    // Nor do activations that pass through the disk.
    model::ActivationSpill spill(PosixEnv(), ::testing::TempDir());
    if (*cache != 0) group->SetSpill(0, &spill);
    const TokenBatch batches[] = {BatchOf(docs_, {0, 3}), BatchOf(docs_, {1}),
                                  BatchOf(docs_, {7, 2})};
    for (int64_t step : {0, 30, 59}) {
      std::vector<int32_t> active, same;
      ASSERT_TRUE(rows->BeginStep(step, &active).ok() && group->BeginStep(step, &same).ok());
      const MicroContext context{step, 0, 7, 0.1};
      std::vector<LossSum> want, got;
      for (int64_t i = 0; i < 3; ++i) {
        const auto loss = rows->Micro(batches[i], {step, i, 7, 0.1});
        ASSERT_TRUE(loss.ok()) << loss.status().message();
        want.push_back(*loss);
      }
      const std::vector<const TokenBatch*> all{&batches[0], &batches[1], &batches[2]};
      const std::vector<int64_t> micros{0, 1, 2};
      ASSERT_TRUE(group->Micros(all, micros, context, &got).ok());
      for (size_t i = 0; i < 3; ++i) EXPECT_EQ(got[i].loss_sum, want[i].loss_sum);
      for (int32_t i : active) {
        const model::Parameter &p = rows->params()[static_cast<size_t>(i)],
                               &q = group->params()[static_cast<size_t>(i)];
        ASSERT_EQ(std::memcmp(p.grad, q.grad, static_cast<size_t>(p.count) * sizeof(float)), 0);
      }
    }
    EXPECT_FALSE(
        rows->Micros(std::vector{&batches[0], &batches[1]}, std::vector<int64_t>{0, 1}, {}, nullptr)
            .ok());
  }
}

// A rounded cache changes a step by its rounding alone: 2^-8 of each state in bf16, half of a 127th
// of the largest of 64 in int8.
TEST_F(EdgeMethodTest, CachedStatesAreTheComputedOnesRounded) {
  const std::vector<Exit> exits = *LayOutExits(6, {.exits = 3});
  model::TrainingPass pass(*ctx_, *model_, 128);
  const TokenBatch batch = BatchOf(docs_, {3, 1, 8});
  const auto hidden = static_cast<size_t>(model_->config().hidden);
  const auto states = [&](const std::string& cache, HiddenCodec codec) {
    TrunkOptions o;
    if (!cache.empty()) o.cache_path = dir_ + "/" + cache;
    o.codec = codec;
    auto trunk = Trunk::Create(*model_, pass, exits, docs_, 128, o);
    EXPECT_TRUE(trunk.ok()) << trunk.status().message();
    EXPECT_TRUE((*trunk)->Prepare(2, nullptr, nullptr, nullptr).ok());
    std::vector<float> h(static_cast<size_t>(batch.size()) * hidden);
    EXPECT_TRUE((*trunk)->StartState(batch, 2, nullptr, h.data()).ok());
    return h;
  };
  const std::vector<float> want = states("", HiddenCodec::kF32);
  const std::vector<float> bf16 = states("bf16", HiddenCodec::kBF16);
  const std::vector<float> int8 = states("int8", HiddenCodec::kInt8);
  for (size_t row = 0; row < want.size(); row += hidden) {
    float top = 0;
    for (size_t i = row; i < row + hidden; ++i) top = std::max(top, std::fabs(want[i]));
    for (size_t i = row; i < row + hidden; ++i) {
      // Beside the rounding, that of fp32 sums in other groups of documents; scales are bf16.
      const float noise = 1e-5f * top;
      EXPECT_NEAR(bf16[i], want[i], std::fabs(want[i]) * 0x1p-8f + noise) << i;
      EXPECT_NEAR(int8[i], want[i], top * 1.01f / 254 + noise) << i;
    }
  }
}

TEST_F(EdgeMethodTest, ARunOnARoundedCacheEndsNearTheUncachedOne) {
  const auto end = [&](const std::string& cache, HiddenCodec codec) {
    EdgeOptions o = Options(TrunkMode::kFrozen, cache);
    o.trunk.codec = codec;
    auto m = Make(o);
    AdamW adam({}, m->params());
    Train(*m, adam, 0, 60);
    return Loss(*m);
  };
  const double want = end("", HiddenCodec::kF32);
  EXPECT_NEAR(end("exact", HiddenCodec::kF32), want, 1e-3 * want);
  EXPECT_NEAR(end("half", HiddenCodec::kBF16), want, 0.01 * want);
  EXPECT_NEAR(end("int8", HiddenCodec::kInt8), want, 0.02 * want);
}

// Overlapping windows of one adapter: all up to the model's end, each with fewer layers.
TEST_F(EdgeMethodTest, RisingWindowsLearnAndAgreeWithTheWholeModel) {
  EdgeOptions o = Options(TrunkMode::kCumulative, "rising");
  o.exits.layout = WindowLayout::kRising;
  o.shares = {1, 2, 3};
  auto m = Make(o);
  ASSERT_EQ(m->exits()[1].begin, 2);
  ASSERT_EQ(m->exits()[1].end, 6);
  AdamW adam({}, m->params());
  const double before = Loss(*m);
  Train(*m, adam, 0, 60);
  EXPECT_LT(Loss(*m), before - 0.1);
  std::vector<int32_t> first, last;
  ASSERT_TRUE(m->BeginStep(0, &first).ok());
  ASSERT_TRUE(m->BeginStep(59, &last).ok());
  EXPECT_EQ(first.size(), 3 * last.size());
  model::TrainingPass pass(*ctx_, *model_, 128);
  model::PassOptions whole;
  whole.lora = &m->adapter(0);
  const TokenBatch batch = BatchOf(docs_, {2, 3});
  const auto want = pass.Run(batch, whole);
  const auto got = m->Evaluate(batch);
  ASSERT_TRUE(want.ok() && got.ok());
  EXPECT_NEAR(got->mean(), want->loss_sum / static_cast<double>(want->labelled), 1e-5);
}

TEST_F(EdgeMethodTest, LearnsWithEitherTrunkAndHead) {
  for (TrunkMode mode : {TrunkMode::kFrozen, TrunkMode::kCumulative}) {
    for (HeadMode head : {HeadMode::kShared, HeadMode::kCopy}) {
      SCOPED_TRACE(fmt::format("{} {}", TrunkModeName(mode), HeadModeName(head)));
      EdgeOptions o = Options(mode, "");
      o.head = head;
      o.head_lora_rank = head == HeadMode::kShared ? 2 : 0;
      auto m = Make(o);
      AdamW adam({}, m->params());
      const double before = Loss(*m);
      Train(*m, adam, 0, 60);
      EXPECT_LT(Loss(*m), before - 0.3);
    }
  }
}

TEST_F(EdgeMethodTest, StoppedAndRestoredGoesOnInTheSameBits) {
  for (TrunkMode mode : {TrunkMode::kFrozen, TrunkMode::kCumulative}) {
    SCOPED_TRACE(TrunkModeName(mode));
    const std::string name(TrunkModeName(mode));
    auto whole = Make(Options(mode, name + "-a"));
    AdamW adam_whole({}, whole->params());
    Train(*whole, adam_whole, 0, 60);

    auto first = Make(Options(mode, name + "-b"));
    AdamW adam_first({}, first->params());
    Train(*first, adam_first, 0, 25);
    const auto files = first->Files();
    ASSERT_TRUE(files.ok());
    for (const ResultFile& f : *files) {
      auto out = PosixEnv().NewWritableFile(dir_ + "/" + f.name);
      ASSERT_TRUE(out.ok());
      ASSERT_TRUE(f.write(**out).ok());
      ASSERT_TRUE((*out)->Close().ok());
    }
    auto second = Make(Options(mode, name + "-b"));
    ASSERT_TRUE(second->Restore(dir_).ok());
    ASSERT_TRUE(second->LoadState(first->SaveState()).ok());
    // The optimiser's own state is the trainer's business: go on with the first one's.
    for (size_t i = 0; i < first->params().size(); ++i) {
      const auto& p = first->params()[i];
      ASSERT_EQ(std::memcmp(p.value, second->params()[i].value,
                            static_cast<size_t>(p.count) * sizeof(float)),
                0);
    }
    Train(*first, adam_first, 25, 60);
    for (size_t i = 0; i < first->params().size(); ++i) {
      const auto& p = first->params()[i];
      EXPECT_EQ(std::memcmp(p.value, whole->params()[i].value,
                            static_cast<size_t>(p.count) * sizeof(float)),
                0)
          << p.name;
    }
  }
}

// What the schedule remembers is part of a checkpoint.
TEST_F(EdgeMethodTest, CheckpointsHoldTheStateOfTheSchedule) {
  auto m = Make(Options(TrunkMode::kFrozen, ""));
  AdamW adam({}, m->params());
  Train(*m, adam, 0, 3);
  RunIdentity identity;
  identity.options_json = "{}";
  RunState state;
  state.step = 3;
  ASSERT_TRUE(SaveRunState(PosixEnv(), dir_, identity, state, *m, adam).ok());
  const auto saved = FindSavedRun(PosixEnv(), dir_, nullptr);
  ASSERT_TRUE(saved.ok()) << saved.status().message();
  ASSERT_TRUE(saved->has_value());
  EXPECT_EQ((*saved)->state.method_state, m->SaveState());
  auto again = Make(Options(TrunkMode::kFrozen, ""));
  AdamW moments({}, again->params());
  const Status restored = RestoreSavedRun(**saved, *again, moments);
  EXPECT_TRUE(restored.ok()) << restored.message();
}

// With a cumulative trunk the result is one adapter on the whole model.
TEST_F(EdgeMethodTest, CumulativeLossIsThatOfTheWholeModelWithItsAdapter) {
  auto m = Make(Options(TrunkMode::kCumulative, "cache"));
  AdamW adam({}, m->params());
  Train(*m, adam, 0, 60);
  model::TrainingPass pass(*ctx_, *model_, 128);
  model::PassOptions o;
  o.lora = &m->adapter(0);
  const TokenBatch batch = BatchOf(docs_, {1, 4});
  const auto want = pass.Run(batch, o);
  const auto got = m->Evaluate(batch);
  ASSERT_TRUE(want.ok() && got.ok());
  EXPECT_NEAR(got->mean(), want->loss_sum / static_cast<double>(want->labelled), 1e-5);
}

TEST_F(EdgeMethodTest, EveryExitIsScoredByItself) {
  for (TrunkMode mode : {TrunkMode::kFrozen, TrunkMode::kCumulative}) {
    SCOPED_TRACE(TrunkModeName(mode));
    auto m = Make(Options(mode, std::string("alone-") + std::string(TrunkModeName(mode))));
    AdamW adam({}, m->params());
    Train(*m, adam, 0, 50);
    EXPECT_EQ(m->CurrentExit(), 2);
    const TokenBatch batch = BatchOf(docs_, {1, 4});
    const auto exits = m->EvaluateExits(batch);
    const auto whole = m->Evaluate(batch);
    ASSERT_TRUE(exits.ok() && whole.ok());
    ASSERT_EQ(exits->size(), 3u);
    for (size_t e = 0; e < 3; ++e) {
      const auto one = m->EvaluateExit(batch, static_cast<int>(e));
      ASSERT_TRUE(one.ok());
      EXPECT_EQ((*exits)[e].loss_sum, one->loss_sum);
    }
    if (mode == TrunkMode::kCumulative) {
      EXPECT_EQ((*exits)[2].loss_sum, whole->loss_sum);
    }
    const report::HeldMemory held = m->Held();
    EXPECT_EQ(held.weights, model_->weight_bytes());
    EXPECT_EQ(held.trainable, held.gradients);
    EXPECT_GT(held.activations, 0);
  }
}

TEST_F(EdgeMethodTest, RefusesWhatDoesNotFitTogether) {
  EdgeOptions o = Options(TrunkMode::kCumulative, "");
  o.order = ExitOrder::kCyclic;
  EXPECT_FALSE(EdgeMethod::Create(*ctx_, *model_, o, docs_, 128, nullptr, nullptr).ok());
  o = Options(TrunkMode::kCumulative, "");
  o.exits.window = 1;
  EXPECT_FALSE(EdgeMethod::Create(*ctx_, *model_, o, docs_, 128, nullptr, nullptr).ok());
  o = Options(TrunkMode::kFrozen, "");
  o.exits.exits = 7;
  EXPECT_FALSE(EdgeMethod::Create(*ctx_, *model_, o, docs_, 128, nullptr, nullptr).ok());
  EXPECT_FALSE(EdgeMethod::Create(*ctx_, *model_, Options(TrunkMode::kFrozen, ""), docs_, 8,
                                  nullptr, nullptr)
                   .ok());
}

}  // namespace
}  // namespace edgewise::tune
