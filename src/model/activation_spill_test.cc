// Activations on disk: the same bits in every form of pass, and failing disks are errors.
#include "model/activation_spill.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "io/env_faulty.h"
#include "kernels/packed/packed_matrix.h"
#include "model/training_pass.h"
#include "testing/model_support.h"
#include "testing/tiny_models.h"

namespace edgewise::model {
namespace {

namespace fs = std::filesystem;
using testing::MakeContext;
using testing::MakeTinyModel;
using testing::RandomDocuments;

constexpr int64_t kLayers = 6;

// Pieces of a pass that are written.
int64_t Written(int64_t layers, int64_t group) {
  int64_t pieces = 0;
  for (int64_t l = 0; l < layers; ++l) {
    for (int64_t r = 0; r < group; ++r) pieces += plan::StaysInSlot(l, layers, r, group) ? 0 : 1;
  }
  return pieces;
}

class ActivationSpillTest : public ::testing::Test {
 protected:
  ActivationSpillTest() {
    dir_ = fs::path(::testing::TempDir()) / ("edgewise-spill-" + std::to_string(::getpid()));
    fs::create_directories(dir_);
  }
  ~ActivationSpillTest() override { fs::remove_all(dir_); }

  static ModelConfig Config() {
    ModelConfig c = testing::TinyLlama();
    c.layers.assign(kLayers, LayerConfig{});
    return c;
  }

  // The same model with its linears packed.
  static std::unique_ptr<Model> Packed(const Model& source) {
    std::vector<std::shared_ptr<const void>> owners;
    ModelWeights weights = source.weights();
    for (auto& layer : weights.layers) {
      for (LinearKind kind : kAllLinears) {
        kernels::WeightRef& ref = layer[kind].weight;
        kernels::PackedFormat f;
        f.bits = 4;
        f.rows = ref.rows;
        f.cols = ref.cols;
        auto packed = kernels::Pack(f, static_cast<const float*>(ref.data), ref.cols);
        EXPECT_TRUE(packed.ok()) << packed.status().message();
        auto owned = std::make_shared<const kernels::PackedMatrix>(std::move(*packed));
        ref = owned->Ref();
        owners.push_back(owned);
      }
    }
    auto model = Model::FromWeights(source.config(), std::move(weights), std::move(owners));
    EXPECT_TRUE(model.ok()) << model.status().message();
    return std::move(*model);
  }

  struct Form {
    int threads = 2;
    plan::Recompute recompute = plan::Recompute::kNone;
    int64_t group = 1;
    LayerRange window = {0, kLayers};  // that is trained; from its beginning on it is run
    int64_t in_memory = -1;
    ActivationSpill* spill = nullptr;
  };
  struct Bits {
    std::vector<double> losses;
    std::vector<float> grads;
    bool operator==(const Bits&) const = default;
  };

  // Two steps of `group` micro-batches of different lengths.
  static Result<Bits> Steps(const Model& model, const Form& form) {
    const auto ctx = MakeContext(form.threads);
    const ModelConfig& c = model.config();
    LoraConfig lora;
    lora.r = 3;
    lora.targets = LoraConfig::Targets::kAllLinear;
    lora.layers_to_transform.emplace();
    for (int64_t l = form.window.begin; l < form.window.end; ++l) {
      lora.layers_to_transform->push_back(l);
    }
    EW_ASSIGN(LoraAdapter adapter, LoraAdapter::Create(c, lora, 5));
    Rng rng(5, RngStream::kTest);
    for (float& v : adapter.values().span()) v = static_cast<float>(0.3 * rng.NextNormal());
    ParameterSet set = ParameterSet::ForLora(adapter);
    constexpr int64_t kMost = 64;
    const TokenBatch all[] = {RandomDocuments({30, 11, 23}, c.vocab),
                              RandomDocuments({17}, c.vocab), RandomDocuments({5, 40}, c.vocab),
                              RandomDocuments({64}, c.vocab)};
    std::vector<float> start(static_cast<size_t>(kMost * c.hidden));
    for (float& v : start) v = static_cast<float>(rng.NextNormal());
    const std::vector<plan::Recompute> again(c.layers.size(), form.recompute);
    PassOptions o;
    o.begin = form.window.begin;
    o.end = form.window.end;
    o.start_hidden = form.window.begin > 0 ? start.data() : nullptr;
    o.lora = &adapter;
    o.gradients = &set.gradients();
    o.grad_scale = 0.1;
    o.dropout = 0.3f;
    o.recompute = again;
    o.layers_in_memory = form.in_memory;
    o.spill = form.spill;
    TrainingPass pass(*ctx, model, kMost);
    Bits bits;
    for (int64_t step = 0; step < 2; ++step) {
      std::vector<TrainingPass::GroupRow> rows;
      for (int64_t i = 0; i < form.group; ++i) {
        const auto at = static_cast<uint64_t>(step + i);
        rows.push_back({&all[at % 4], o.start_hidden, at, at});
      }
      EW_ASSIGN(const auto results, pass.RunGroup(rows, o));
      for (const auto& r : results) bits.losses.push_back(r.loss_sum);
      const PassMemory needed = pass.MemoryNeeded(o), taken = pass.memory();
      EXPECT_EQ(taken.activations, form.group * needed.activations);
      EXPECT_EQ(taken.scratch, needed.scratch);
    }
    bits.grads.assign(set.grads().data(), set.grads().data() + set.count());
    return bits;
  }

  fs::path dir_;
};

TEST_F(ActivationSpillTest, ChangesNoBit) {
  const auto dense = MakeTinyModel(Config());
  const auto packed = Packed(*dense);
  for (const Model* model : {dense.get(), packed.get()}) {
    for (const LayerRange window : {LayerRange{0, kLayers}, LayerRange{2, kLayers - 1}}) {
      for (const int64_t group : {1, 2, 4}) {
        Form form;
        form.window = window;
        form.group = group;
        const auto want = Steps(*model, form);
        ASSERT_TRUE(want.ok()) << want.status().message();
        const int64_t layers = window.end - window.begin;
        for (const int64_t in_memory : {int64_t{0}, int64_t{1}, layers - 2, layers}) {
          for (const auto recompute :
               {plan::Recompute::kNone, plan::Recompute::kMlp, plan::Recompute::kLayer}) {
            ActivationSpill spill(PosixEnv(), dir_.string());
            form.in_memory = in_memory;
            form.recompute = recompute;
            form.threads = recompute == plan::Recompute::kLayer ? 1 : 2;
            form.spill = &spill;
            const auto got = Steps(*model, form);
            ASSERT_TRUE(got.ok()) << got.status().message();
            EXPECT_EQ(*got, *want) << "group " << group << ", in memory " << in_memory;
            // What is written is what is said beforehand.
            const SpillStats stats = spill.stats();
            EXPECT_LE(stats.bytes_read, stats.bytes_written);
            EXPECT_EQ(stats.bytes_written > 0, Written(layers - in_memory, group) > 0);
          }
        }
      }
    }
  }
}

TEST_F(ActivationSpillTest, LeavesMemoryToOtherLayers) {
  const auto model = MakeTinyModel(Config());
  const auto ctx = MakeContext(1);
  LoraConfig lora;
  lora.r = 3;
  lora.targets = LoraConfig::Targets::kAllLinear;
  auto adapter = LoraAdapter::Create(model->config(), lora, 5);
  ASSERT_TRUE(adapter.ok());
  const ParameterSet set = ParameterSet::ForLora(*adapter);
  const TrainingPass pass(*ctx, *model, 4096);
  PassOptions o;
  o.lora = &*adapter;
  o.gradients = &set.gradients();
  const PassMemory all = pass.MemoryNeeded(o);
  const int64_t rows = 4096 * model->config().hidden * 4;
  int64_t last = all.activations;
  for (int64_t n = kLayers - 1; n >= 0; --n) {
    o.layers_in_memory = n;
    const PassMemory some = pass.MemoryNeeded(o);
    EXPECT_LT(some.activations, last - rows);
    EXPECT_GT(some.scratch, all.scratch);
    last = some.activations;
  }
  // The state on its way up and the gradient on its way down stay.
  EXPECT_EQ(last, 2 * rows);
}

// Pieces of a few values, whose slots show what is held.
TEST_F(ActivationSpillTest, WritesOnlyWhatHasToLeave) {
  constexpr int64_t kPiece = 100;
  AlignedBuffer slots(static_cast<size_t>(ActivationSpill::SlotBytes(kPiece)));
  ActivationSpill spill(PosixEnv(), dir_.string());
  for (const int64_t layers : {1, 2, 3, 7}) {
    for (const int64_t group : {1, 2, 3, 5}) {
      std::vector<int32_t> uses;
      for (int64_t l = layers - 1; l >= 0; --l) {
        for (int64_t r = 0; r < group; ++r) uses.push_back(static_cast<int32_t>(l * group + r));
      }
      spill.ResetStats();
      ASSERT_TRUE(spill.Begin(uses, kPiece, slots.as<std::byte>()).ok());
      for (int64_t p = 0; p < layers * group; ++p) {
        const auto at = spill.Fill(p);
        ASSERT_TRUE(at.ok()) << at.status().message();
        std::fill_n(*at, kPiece, static_cast<std::byte>(p));
        spill.Filled(p, kPiece);
      }
      for (int32_t p : uses) {
        const auto at = spill.Take(p);
        ASSERT_TRUE(at.ok()) << at.status().message();
        EXPECT_EQ((*at)[0], static_cast<std::byte>(p));
        EXPECT_EQ((*at)[kPiece - 1], static_cast<std::byte>(p));
        spill.Drop(p);
      }
      spill.End();
      EXPECT_EQ(spill.stats().bytes_written, Written(layers, group) * ScratchFile::kAlignment)
          << layers << " layers, groups of " << group;
    }
  }
}

TEST_F(ActivationSpillTest, AFailingDiskIsAnErrorAndTheNextPassMaySucceed) {
  const auto model = MakeTinyModel(Config());
  FaultyEnv env(PosixEnv());
  for (const int64_t group : {1, 3}) {
    Form form;
    form.group = group;
    const auto want = Steps(*model, form);
    ASSERT_TRUE(want.ok());
    form.in_memory = group == 1 ? 2 : 4;
    int64_t operations = 0;
    {
      ActivationSpill spill(env, dir_.string());
      form.spill = &spill;
      env.SetPlan({.count_reads = true});
      ASSERT_TRUE(Steps(*model, form).ok());
      operations = env.operations();
      EXPECT_GT(operations, 5);
    }
    for (int64_t at = 0; at < operations; ++at) {
      for (const bool persistent : {false, true}) {
        ActivationSpill spill(env, dir_.string());
        form.spill = &spill;
        env.SetPlan({.fail_at = at, .persistent = persistent, .count_reads = true});
        const auto failed = Steps(*model, form);
        ASSERT_FALSE(failed.ok()) << "operation " << at;
        EXPECT_EQ(failed.status().code(), StatusCode::kIo);
        EXPECT_NE(failed.status().message().find("on disk"), std::string::npos);
        EXPECT_NE(failed.status().message().find("No space left"), std::string::npos);
        env.SetPlan({});
        const auto again = Steps(*model, form);
        ASSERT_TRUE(again.ok()) << again.status().message();
        EXPECT_EQ(*again, *want);
      }
    }
  }
}

TEST_F(ActivationSpillTest, ADiskThatIsTooSmallIsNoticedAtOnce) {
  ActivationSpill spill(PosixEnv(), dir_.string());
  const int64_t free = PosixEnv().FreeBytes(dir_.string()).value();
  const Status status = spill.Reserve(2, free);
  EXPECT_EQ(status.code(), StatusCode::kIo);
  EXPECT_NE(status.message().find("free"), std::string::npos) << status.message();
  EXPECT_TRUE(spill.Reserve(2, 4096).ok());
  ActivationSpill nowhere(PosixEnv(), (dir_ / "none").string());
  EXPECT_FALSE(nowhere.Reserve(1, 4096).ok());
}

TEST_F(ActivationSpillTest, APassWithoutAPlaceForItIsRefused) {
  const auto model = MakeTinyModel(Config());
  Form form;
  form.in_memory = 2;
  EXPECT_EQ(Steps(*model, form).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace edgewise::model
