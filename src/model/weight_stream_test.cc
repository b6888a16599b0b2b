// Streamed models: the same bits as in memory, under any budget; budgets and damage are noticed.
#include "model/weight_stream.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "kernels/packed/packed_matrix.h"
#include "model/decoder.h"
#include "model/held_weights.h"
#include "model/packed_base.h"
#include "model/save.h"
#include "model/save_packed.h"
#include "model/training_pass.h"
#include "model/workload.h"
#include "testing/model_support.h"
#include "testing/tiny_models.h"

namespace edgewise::model {
namespace {

namespace fs = std::filesystem;
using testing::MakeContext;
using testing::MakeTinyModel;

// A base whose linears are packed in different forms, or a dense one, in a directory of its own.
class WeightStreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::path(::testing::TempDir()) / ("edgewise-stream-" + std::to_string(::getpid()));
    fs::remove_all(dir_);
  }
  void TearDown() override { fs::remove_all(dir_); }

  // Several layers, large enough that units are not all of the smallest size.
  static ModelConfig Config(bool tied) {
    ModelConfig c = testing::TinyLlama();
    c.hidden = 256;
    c.ffn = 768;
    c.heads = 4;
    c.kv_heads = 2;
    c.head_dim = 64;
    c.attn_scale = 0.125f;
    c.vocab = 512;
    c.tied = tied;
    c.layers.assign(5, LayerConfig{});
    return c;
  }

  void WritePacked(const ModelConfig& config, bool pack_embedding) {
    const auto source = MakeTinyModel(config);
    std::vector<std::shared_ptr<const void>> owners;
    ModelWeights weights = source->weights();
    const auto pack = [&](kernels::WeightRef& ref, kernels::PackedFormat f) {
      f.rows = ref.rows;
      f.cols = ref.cols;
      auto packed = kernels::Pack(f, static_cast<const float*>(ref.data), ref.cols);
      ASSERT_TRUE(packed.ok()) << packed.status().message();
      auto owned = std::make_shared<const kernels::PackedMatrix>(std::move(*packed));
      ref = owned->Ref();
      owners.push_back(owned);
    };
    for (size_t l = 0; l < weights.layers.size(); ++l) {
      for (LinearKind kind : kAllLinears) {
        kernels::PackedFormat f;
        f.bits = l % 2 == 0 ? 4 : 8;
        f.group = 64;
        if (l == 3) f.structure = kernels::Structure::kUnstructured, f.group = 0;
        pack(weights.layers[l][kind].weight, f);
      }
    }
    if (pack_embedding) {
      kernels::PackedFormat f;
      f.bits = 8;
      pack(weights.embedding, f);
      if (!config.tied) pack(weights.head, f);
    }
    auto model = Model::FromWeights(config, std::move(weights), std::move(owners));
    ASSERT_TRUE(model.ok()) << model.status().message();
    const Status saved = SavePackedBase(PosixEnv(), **model, {}, dir_.string());
    ASSERT_TRUE(saved.ok()) << saved.message();
  }

  void WriteDense(const ModelConfig& config) {
    const Status saved = SaveHfModel(PosixEnv(), *MakeTinyModel(config), DType::kBF16,
                                     ConfigToHf(config, DType::kBF16), {}, dir_.string());
    ASSERT_TRUE(saved.ok()) << saved.message();
  }

  Result<std::unique_ptr<Model>> Load(int64_t budget, bool direct = false,
                                      int64_t head_block = int64_t{8} << 20) const {
    LoadOptions options;
    options.stream = {budget, direct, head_block};
    return Model::Load(dir_.string(), options);
  }

  fs::path dir_;
};

// What a plan rests on can be said of streamed weights without holding them.
TEST_F(WeightStreamTest, StepsAreDescribedAlikeStreamedOrNot) {
  WritePacked(Config(false), true);
  const auto whole = Model::Load(dir_.string()), streamed = Load(int64_t{4} << 20);
  ASSERT_TRUE(whole.ok() && streamed.ok());
  WorkloadOptions o;
  o.tokens = 64;
  const auto a = DescribeStep((*whole)->config(), whole->get(), o);
  const auto b = DescribeStep((*streamed)->config(), streamed->get(), o);
  ASSERT_TRUE(a.ok() && b.ok());
  ASSERT_EQ(a->stages.size(), b->stages.size());
  for (size_t s = 0; s < a->stages.size(); ++s) {
    const auto &x = a->stages[s].ops, &y = b->stages[s].ops;
    ASSERT_EQ(x.size(), y.size());
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_EQ(x[i].bits, y[i].bits) << a->stages[s].name << " " << x[i].name;
      EXPECT_EQ(x[i].sparsity, y[i].sparsity) << a->stages[s].name << " " << x[i].name;
      EXPECT_EQ(x[i].weight_bytes, y[i].weight_bytes);
    }
  }
  const auto rate = (*streamed)->stream()->MeasureRead(1 << 20);
  ASSERT_TRUE(rate.ok()) << rate.status().message();
  EXPECT_GT(rate->gbps, 0);
  EXPECT_GE(rate->processors, 0);
  EXPECT_LE(rate->processors, 1);
  EXPECT_EQ((*streamed)->stream()->stats().bytes, 0);
}

struct Bits {
  double loss = 0;
  std::vector<float> grads, logits;
  bool operator==(const Bits&) const = default;
};

// Two steps with gradients, recomputed or not, then a prefill and a decoded token.
Bits RunAll(const Model& model, int threads, bool recompute) {
  const auto ctx = MakeContext(threads);
  const ModelConfig& c = model.config();
  LoraConfig lora;
  lora.r = 3;
  lora.targets = LoraConfig::Targets::kAllLinear;
  auto adapter = LoraAdapter::Create(c, lora, 5);
  EXPECT_TRUE(adapter.ok());
  Rng rng(5, RngStream::kTest);
  for (float& v : adapter->values().span()) v = static_cast<float>(0.1 * rng.NextNormal());
  ParameterSet set = ParameterSet::ForLora(*adapter);
  const std::vector<plan::Recompute> again(
      c.layers.size(), recompute ? plan::Recompute::kLayer : plan::Recompute::kNone);
  const TokenBatch batch = testing::RandomDocuments({20, 12}, c.vocab);
  TrainingPass pass(*ctx, model, batch.size());
  Bits bits;
  // The second step tunes an adapter on the head, and leaves blocks of it out.
  std::vector<float> head_lora;
  for (int64_t i = 0; i < 2 * (c.hidden + c.vocab); ++i) {
    head_lora.push_back(static_cast<float>(0.1 * rng.NextNormal()));
  }
  std::vector<float> head_gradient(head_lora.size());
  for (int step = 0; step < 2; ++step) {
    PassOptions options;
    if (step == 1) {
      options.head = {.lora_r = 2,
                      .lora_scale = 0.5f,
                      .lora_a = head_lora.data(),
                      .lora_b = head_lora.data() + 2 * c.hidden,
                      .dlora_a = head_gradient.data(),
                      .dlora_b = head_gradient.data() + 2 * c.hidden};
      options.head_skip_below = 1e-3f;
    }
    options.lora = &*adapter;
    options.gradients = &set.gradients();
    options.grad_scale = 0.1;
    options.recompute = again;
    const auto result = pass.Run(batch, options);
    EXPECT_TRUE(result.ok()) << result.status().message();
    if (result.ok()) bits.loss += result->loss_sum;
  }
  bits.grads = head_gradient;
  for (const Parameter& p : set.params())
    bits.grads.insert(bits.grads.end(), p.grad, p.grad + p.count);
  // A window that starts above the embedding, as adaptive tuning runs it.
  std::vector<float> hidden(static_cast<size_t>(batch.size() * c.hidden));
  EXPECT_TRUE(pass.Embed(batch, hidden.data()).ok());
  EXPECT_TRUE(pass.Forward(batch, {0, 2}, nullptr, hidden.data()).ok());
  bits.grads.insert(bits.grads.end(), hidden.begin(), hidden.end());

  DecoderOptions decoding;
  decoding.max_context = 16;
  decoding.prefill_chunk = 4;
  auto decoder = Decoder::Create(*ctx, model, decoding, &*adapter);
  EXPECT_TRUE(decoder.ok());
  const std::vector<int32_t> prompt = {1, 5, 9, 2, 7, 3};
  for (const auto& logits : {(*decoder)->Prefill(prompt), (*decoder)->Step(4)}) {
    EXPECT_TRUE(logits.ok()) << logits.status().message();
    if (logits.ok()) bits.logits.insert(bits.logits.end(), logits->begin(), logits->end());
  }
  return bits;
}

TEST_F(WeightStreamTest, GivesTheBitsOfTheModelInMemory) {
  for (const bool tied : {false, true}) {
    for (const bool packed : {false, true}) {
      SCOPED_TRACE(::testing::Message() << "tied " << tied << ", packed " << packed);
      if (packed) {
        WritePacked(Config(tied), /*pack_embedding=*/tied);
      } else {
        WriteDense(Config(tied));
      }
      auto mapped = Load(0);
      ASSERT_TRUE(mapped.ok()) << mapped.status().message();
      const Bits want = RunAll(**mapped, 2, false);
      auto all = Load(int64_t{1} << 40);
      ASSERT_TRUE(all.ok()) << all.status().message();
      WeightStream& stream = *(*all)->stream();
      const int64_t least = stream.largest_unit_bytes(), most = stream.total_bytes();
      EXPECT_EQ(RunAll(**all, 1, true), want);
      // Nothing is read twice; of a dense embedding only rows are.
      EXPECT_LE(stream.stats().loads, stream.units());
      for (const int64_t budget : {least, 2 * least, (least + most) / 2}) {
        for (const bool direct : {false, true}) {
          auto streamed = Load(budget, direct, int64_t{32} << 10);
          ASSERT_TRUE(streamed.ok()) << streamed.status().message();
          EXPECT_EQ((*streamed)->stream()->head_blocks(), 4);
          EXPECT_EQ(RunAll(**streamed, 2, direct), want) << "budget " << budget;
        }
      }
      fs::remove_all(dir_);
    }
  }
}

TEST_F(WeightStreamTest, KeepsWithinItsBudget) {
  WritePacked(Config(false), true);
  auto model = Load(int64_t{1} << 40);
  ASSERT_TRUE(model.ok()) << model.status().message();
  WeightStream& stream = *(*model)->stream();
  const int64_t least = stream.largest_unit_bytes();
  EXPECT_EQ(stream.SetBudget(least - 1).code(), StatusCode::kOutOfMemory);
  ASSERT_TRUE(stream.SetBudget(2 * least).ok());
  RunAll(**model, 2, false);
  EXPECT_GT(stream.stats().loads, stream.units());
  EXPECT_EQ(Load(least - 1).status().code(), StatusCode::kOutOfMemory);
}

// The head is the largest matrix of a small model: a block of it at a time is enough, unless it is
// asked for as a whole.
TEST_F(WeightStreamTest, AHeadLargerThanTheBudget) {
  for (const bool tied : {false, true}) {
    ModelConfig config = Config(tied);
    config.vocab = 8192 + 40;
    WritePacked(config, true);
    auto mapped = Load(0), streamed = Load(int64_t{1} << 40, false, int64_t{256} << 10);
    ASSERT_TRUE(mapped.ok() && streamed.ok()) << streamed.status().message();
    WeightStream& stream = *(*streamed)->stream();
    EXPECT_GE(stream.head_blocks(), 8);
    EXPECT_GT(stream.head_bytes(), int64_t{19} << 16);
    ASSERT_LT(stream.largest_unit_bytes(), stream.head_bytes());
    ASSERT_TRUE(stream.SetBudget(stream.largest_unit_bytes()).ok());
    EXPECT_EQ(RunAll(**streamed, 2, false), RunAll(**mapped, 2, false));
    EXPECT_LE(stream.resident_bytes(), stream.largest_unit_bytes());
    EXPECT_EQ(HeldWeights::Head(**streamed).status().code(), StatusCode::kOutOfMemory);
    ASSERT_TRUE(stream.SetBudget(stream.least_bytes(/*whole_head=*/true)).ok());
    EXPECT_TRUE(HeldWeights::Head(**streamed).ok());
    fs::remove_all(dir_);
  }
}

// What a step is said to read is in the order in which it is read.
TEST_F(WeightStreamTest, AHeadInBlocksIsDescribedInItsOrder) {
  ModelConfig config = Config(false);
  config.vocab = 8192;
  WritePacked(config, true);
  auto model = Load(int64_t{1} << 40, false, int64_t{1} << 20);
  ASSERT_TRUE(model.ok());
  const int64_t blocks = (*model)->stream()->head_blocks();
  ASSERT_EQ(blocks, 3);
  WorkloadOptions o;
  o.method = WorkloadMethod::kEdge;
  o.window = {3, 5};
  o.head_rank = 2;
  o.head_skip_below = 1e-4f;
  const auto w = DescribeStep((*model)->config(), model->get(), o);
  ASSERT_TRUE(w.ok());
  std::vector<int32_t> units;
  double gops = 0;
  for (const plan::Stage& s : w->stages) {
    if (!s.name.starts_with("head")) continue;
    units.push_back(s.unit);
    for (const plan::Op& op : s.ops) gops += op.out == config.vocab ? op.gops : 0;
  }
  const auto first = static_cast<int32_t>(config.num_layers());
  EXPECT_EQ(units, (std::vector<int32_t>{first, first + 1, first + 2, first + 2, first + 1, first,
                                         first}));
  o.whole_head = true;
  const auto whole = DescribeStep((*model)->config(), model->get(), o);
  ASSERT_TRUE(whole.ok());
  EXPECT_EQ(whole->units.back().bytes, (*model)->stream()->head_bytes());
  for (const plan::Stage& s : whole->stages) {
    if (s.name == "head") {
      EXPECT_NEAR(s.ops[0].gops, gops, 1e-9 * gops);
    }
  }
}

TEST_F(WeightStreamTest, UnitsInAnyOrderAreWaitedFor) {
  WriteDense(Config(false));
  auto model = Load(int64_t{1} << 40);
  ASSERT_TRUE(model.ok());
  WeightStream& stream = *(*model)->stream();
  ASSERT_TRUE(stream.SetBudget(stream.largest_unit_bytes()).ok());
  stream.Expect({0, 1, 2});
  for (int64_t unit : {4, 2, 0, 5, 1, 5, 3, 3}) {
    ASSERT_TRUE(stream.Acquire(unit).ok());
    stream.Release(unit);
  }
}

TEST_F(WeightStreamTest, AFileThatShrinksIsAnError) {
  WritePacked(Config(false), true);
  auto model = Load(int64_t{1} << 40);
  ASSERT_TRUE(model.ok());
  const fs::path file = dir_ / std::string(kPackedFile);
  fs::resize_file(file, fs::file_size(file) / 2);
  const auto ctx = MakeContext(2);
  const TokenBatch batch = testing::RandomDocuments({8}, (*model)->config().vocab);
  TrainingPass pass(*ctx, **model, batch.size());
  EXPECT_EQ(pass.Run(batch, {}).status().code(), StatusCode::kBadInput);
}

TEST_F(WeightStreamTest, ADamagedMatrixIsAnError) {
  WritePacked(Config(false), true);
  auto model = Load(int64_t{1} << 40);
  ASSERT_TRUE(model.ok());
  {
    // Over the first matrix's header, after it was looked at.
    std::fstream f(dir_ / std::string(kPackedFile),
                   std::ios::in | std::ios::out | std::ios::binary);
    const std::string zeros(static_cast<size_t>(fs::file_size(dir_ / std::string(kPackedFile)) / 2),
                            '\0');
    f.seekp(8192);
    f.write(zeros.data(), static_cast<std::streamsize>(zeros.size()));
  }
  const auto ctx = MakeContext(2);
  const TokenBatch batch = testing::RandomDocuments({8}, (*model)->config().vocab);
  TrainingPass pass(*ctx, **model, batch.size());
  EXPECT_FALSE(pass.Run(batch, {}).ok());
}

// The mask of a sparse matrix says how much the kernels read: it may not change behind their back.
TEST_F(WeightStreamTest, AMaskThatChangesBetweenTwoReadsIsAnError) {
  WritePacked(Config(false), true);
  const std::string path = dir_ / std::string(kPackedFile);
  std::string content;
  size_t mask = 0;
  {
    auto mapped = Load(0);
    ASSERT_TRUE(mapped.ok());
    const auto* sparse = (*mapped)->weights().layers[3][LinearKind::kDown].weight.packed;
    ASSERT_EQ(sparse->format().structure, kernels::Structure::kUnstructured);
    std::ifstream in(path, std::ios::binary);
    content.assign(std::istreambuf_iterator<char>(in), {});
    const auto* blob = reinterpret_cast<const char*>(sparse->bytes().data());
    const size_t at = content.find(std::string_view(blob, sparse->bytes().size()));
    ASSERT_NE(at, std::string::npos);
    mask = at + static_cast<size_t>(sparse->layout().aux);
  }
  auto model = Load(int64_t{1} << 40);
  ASSERT_TRUE(model.ok());
  WeightStream& stream = *(*model)->stream();
  ASSERT_TRUE(stream.SetBudget(stream.largest_unit_bytes()).ok());
  for (const int64_t unit : {3, 0}) {
    ASSERT_TRUE(stream.Acquire(unit).ok());
    stream.Release(unit);
  }
  {
    std::fstream f(path, std::ios::in | std::ios::out | std::ios::binary);
    f.seekp(static_cast<std::streamoff>(mask));
    f.write(std::string(64, '\0').data(), 64);
  }
  EXPECT_EQ(stream.Acquire(3).code(), StatusCode::kBadInput);
}

}  // namespace
}  // namespace edgewise::model
