// What a step of adaptive layer tuning may have beside one window and its exit: more windows, a
// teacher, rounded activations, the plain head.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tune/edge_method_test_util.h"

namespace edgewise::tune {
namespace {

class EdgeOptionsTest : public EdgeMethodTest {};

// The gradient of the mean of two exits' losses is half of each one's own.
TEST_F(EdgeOptionsTest, TwoWindowsInAStepLearnTheMeanOfTheirLosses) {
  EdgeOptions o = Options(TrunkMode::kFrozen, "");
  o.order = ExitOrder::kCyclic;
  auto one = Make(o);
  o.windows_per_step = 2;
  auto two = Make(o);
  const TokenBatch batch = BatchOf(docs_, {2, 7});
  const MicroContext context{2, 0, 7, 0.25};
  std::vector<int32_t> active, alone;
  // The third exit, and after the last the first again.
  ASSERT_TRUE(two->BeginStep(2, &active).ok());
  const auto mean = two->Micro(batch, context);
  ASSERT_TRUE(mean.ok());
  double loss = 0;
  size_t params = 0;
  for (int64_t step : {2, 3}) {
    ASSERT_TRUE(one->BeginStep(step, &alone).ok());
    const auto own = one->Micro(batch, context);
    ASSERT_TRUE(own.ok());
    loss += 0.5 * own->loss_sum;
    params += alone.size();
    for (int32_t i : alone) {
      EXPECT_TRUE(std::binary_search(active.begin(), active.end(), i));
      const model::Parameter &p = one->params()[static_cast<size_t>(i)],
                             &q = two->params()[static_cast<size_t>(i)];
      for (int64_t k = 0; k < p.count; ++k) ASSERT_EQ(q.grad[k], 0.5f * p.grad[k]) << p.name;
    }
  }
  EXPECT_EQ(active.size(), params);
  EXPECT_NEAR(mean->loss_sum, loss, 1e-9 * loss);

  o.windows_per_step = 4;
  EXPECT_FALSE(EdgeMethod::Create(*ctx_, *model_, o, docs_, 128, nullptr, nullptr).ok());
  o = Options(TrunkMode::kCumulative, "");
  o.windows_per_step = 2;
  EXPECT_FALSE(EdgeMethod::Create(*ctx_, *model_, o, docs_, 128, nullptr, nullptr).ok());
}

TEST_F(EdgeOptionsTest, AllWindowsAtOnceLearn) {
  EdgeOptions o = Options(TrunkMode::kFrozen, "all");
  o.order = ExitOrder::kCyclic;
  o.windows_per_step = 3;
  auto m = Make(o);
  AdamW adam({}, m->params());
  const double before = Loss(*m);
  Train(*m, adam, 0, 60);
  EXPECT_LT(Loss(*m), before - 0.3);
}

TEST_F(EdgeOptionsTest, LearnsFromATeacher) {
  const auto teacher = std::move(*model::Model::Random(TinyConfig(), 9));
  EdgeOptions o = Options(TrunkMode::kFrozen, "");
  o.exits.exits = 1;
  o.teacher = teacher.get();
  o.teacher_weight = 1;
  auto m = Make(o);
  AdamW adam({}, m->params());
  const std::vector<double> losses = Train(*m, adam, 0, 60);
  // Of random models: the distance to the teacher falls, whatever the targets say.
  EXPECT_GT(losses.front(), 0);
  EXPECT_LT(losses.back(), 0.7 * losses.front());
  EXPECT_NE(m->OptionsJson().find("\"teacher\""), std::string::npos);

  // A model is its own best teacher: at the start there is nothing to learn.
  o.teacher = model_.get();
  auto own = Make(o);
  std::vector<int32_t> active;
  ASSERT_TRUE(own->BeginStep(0, &active).ok());
  const auto loss = own->Micro(BatchOf(docs_, {1, 2}), {0, 0, 7, 1});
  ASSERT_TRUE(loss.ok());
  EXPECT_NEAR(loss->mean(), 0, 1e-5);

  o.teacher_weight = 1.5;
  EXPECT_FALSE(EdgeMethod::Create(*ctx_, *model_, o, docs_, 128, nullptr, nullptr).ok());
  o.teacher_weight = 0.5;
  model::ModelConfig other = TinyConfig();
  other.vocab = 60;
  const auto stranger = std::move(*model::Model::Random(other, 9));
  o.teacher = stranger.get();
  EXPECT_FALSE(EdgeMethod::Create(*ctx_, *model_, o, docs_, 128, nullptr, nullptr).ok());
}

// Rounded activations belong to the states below a window: their cache is not that of others.
TEST_F(EdgeOptionsTest, RoundedActivationsHaveACacheOfTheirOwn) {
  const TokenBatch batch = BatchOf(docs_, {3, 8});
  const auto loss = [&](const std::string& cache, int bits) {
    EdgeOptions o = Options(TrunkMode::kFrozen, cache);
    o.activation_bits = bits;
    auto m = Make(o);
    std::vector<int32_t> active;
    EXPECT_TRUE(m->BeginStep(59, &active).ok());
    const auto result = m->Micro(batch, {59, 0, 7, 0.1});
    EXPECT_TRUE(result.ok());
    return result->mean();
  };
  const double exact = loss("one", 0), rounded = loss("", 3);
  EXPECT_GT(std::fabs(exact - rounded), 1e-4);
  // (The states below were made in groups of other documents: fp32 rounding.)
  EXPECT_NEAR(loss("one", 3), rounded, 1e-5);
  EXPECT_NEAR(loss("one", 0), exact, 1e-5);
}

TEST_F(EdgeOptionsTest, GroupsOfMicroBatchesAreTakenWhereTheyAreTheSameBits) {
  const TokenBatch batches[] = {BatchOf(docs_, {3, 8}), BatchOf(docs_, {1})};
  const std::vector<const TokenBatch*> both{&batches[0], &batches[1]};
  const std::vector<int64_t> micros{0, 1};
  const auto teacher = std::move(*model::Model::Random(TinyConfig(), 9));
  std::vector<int32_t> active;
  std::vector<LossSum> losses;

  EdgeOptions with_teacher = Options(TrunkMode::kFrozen, ""), windows = with_teacher,
              whole = with_teacher, rounded = with_teacher;
  with_teacher.teacher = teacher.get();
  with_teacher.teacher_weight = 0.5;
  windows.order = ExitOrder::kCyclic;
  windows.windows_per_step = 2;
  whole.whole_head = true;
  for (const EdgeOptions* o : {&with_teacher, &windows, &whole}) {
    auto m = Make(*o);
    EXPECT_FALSE(m->TakesGroups());
    m->SetGroup(2);
    EXPECT_EQ(m->group(), 1);
    ASSERT_TRUE(m->BeginStep(59, &active).ok());
    EXPECT_FALSE(m->Micros(both, micros, {59, 0, 7, 0.1}, &losses).ok());
    EXPECT_TRUE(m->Micro(batches[0], {59, 0, 7, 0.1}).ok());
  }

  rounded.activation_bits = 4;
  auto rows = Make(rounded), group = Make(rounded);
  group->SetGroup(2);
  ASSERT_EQ(group->group(), 2);
  ASSERT_TRUE(rows->BeginStep(59, &active).ok() && group->BeginStep(59, &active).ok());
  ASSERT_TRUE(group->Micros(both, micros, {59, 0, 7, 0.1}, &losses).ok());
  for (size_t i = 0; i < 2; ++i) {
    const auto one = rows->Micro(batches[i], {59, micros[i], 7, 0.1});
    ASSERT_TRUE(one.ok());
    EXPECT_EQ(losses[i].loss_sum, one->loss_sum);
  }
  for (int32_t i : active) {
    const model::Parameter &p = rows->params()[static_cast<size_t>(i)],
                           &q = group->params()[static_cast<size_t>(i)];
    for (int64_t k = 0; k < p.count; ++k) ASSERT_EQ(p.grad[k], q.grad[k]) << p.name;
  }
}

TEST_F(EdgeOptionsTest, TheWholeHeadLearnsWhatTheFusedOneDoes) {
  EdgeOptions o = Options(TrunkMode::kFrozen, "");
  o.head_lora_rank = 2;
  auto fused = Make(o);
  o.whole_head = true;
  auto whole = Make(o);
  EXPECT_GT(whole->MemoryNeeded().scratch, fused->MemoryNeeded().scratch);
  // A teacher's logits lie beside the model's, and it has working buffers of its own.
  const auto teacher = std::move(*model::Model::Random(TinyConfig(), 9));
  EdgeOptions with_teacher = o;
  with_teacher.teacher = teacher.get();
  with_teacher.teacher_weight = 0.5;
  auto taught = Make(with_teacher);
  EXPECT_GE(taught->MemoryNeeded(7).scratch,
            whole->MemoryNeeded(7).scratch +
                7 * TinyConfig().vocab * static_cast<int64_t>(sizeof(float)));
  AdamW a({}, fused->params()), b({}, whole->params());
  const std::vector<double> want = Train(*fused, a, 0, 10), got = Train(*whole, b, 0, 10);
  for (size_t s = 0; s < want.size(); ++s) EXPECT_NEAR(got[s], want[s], 1e-4) << s;
}

// What one window says of others is what those say of themselves.
TEST_F(EdgeOptionsTest, MemoryOfOtherWindowsIsKnownBeforeTheyAreMade) {
  const auto teacher = std::move(*model::Model::Random(TinyConfig(), 9));
  for (int form = 0; form < 5; ++form) {
    EdgeOptions o = Options(form == 1 ? TrunkMode::kCumulative : TrunkMode::kFrozen, "");
    o.exits.first_layer = form == 3 ? 1 : 0;
    o.head_lora_rank = form == 2 ? 0 : 3;
    if (form == 3) o.head = HeadMode::kCopy;
    if (form == 4) o.teacher = teacher.get(), o.teacher_weight = 0.5;
    o.exits.exits = 1;
    auto one = Make(o);
    for (int64_t exits = 1; exits <= 5; ++exits) {
      SCOPED_TRACE(exits);
      o.exits.exits = exits;
      auto m = Make(o);
      int64_t trained = 0;
      for (const model::Parameter& p : m->params()) trained += p.count;
      EXPECT_EQ(one->ParametersOf(m->exits()), trained);
      for (const auto recompute :
           {plan::Recompute::kNone, plan::Recompute::kMlp, plan::Recompute::kLayer}) {
        for (int64_t in_memory : {-1, 0, 1}) {
          for (EdgeMethod* of : {one.get(), m.get()}) {
            of->SetRecompute(recompute, model::kLeastMlpRows);
            of->SetSpill(in_memory, nullptr);
          }
          const model::PassMemory want = m->MemoryNeeded(50),
                                  got = one->MemoryNeeded(50, m->exits());
          EXPECT_EQ(got.activations, want.activations);
          EXPECT_EQ(got.scratch, want.scratch);
        }
      }
    }
  }
}

}  // namespace
}  // namespace edgewise::tune
