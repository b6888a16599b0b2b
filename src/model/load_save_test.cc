// Models to and from files: round trips, and files that do not fit.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "formats/gguf_writer.h"
#include "formats/hf_dir.h"
#include "io/json.h"
#include "model/save.h"
#include "testing/tiny_models.h"

namespace edgewise::model {
namespace {

using Tensors = std::map<std::string, HostTensor>;

class Files : public ::testing::Test {
 protected:
  Files() {
    dir_ = ::testing::TempDir() + "/model_files_" + std::to_string(::getpid());
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
  }
  ~Files() override { std::filesystem::remove_all(dir_); }

  // The weights of a model as named tensors.
  static Tensors TensorsOf(Model& model) {
    Tensors tensors;
    for (const WeightId& id : ListWeights(model.config())) {
      tensors[HfName(model.config(), id)] =
          formats::MakeFloatTensor(ShapeOf(model.config(), id), model.MutableData(id));
    }
    return tensors;
  }
  void WriteHf(const ModelConfig& config, const Tensors& tensors) {
    formats::HfDirWriter writer(ConfigToHf(config, DType::kF32));
    for (const auto& [name, tensor] : tensors) ASSERT_TRUE(writer.Add(name, tensor).ok());
    const Status status = writer.Write(PosixEnv(), dir_);
    ASSERT_TRUE(status.ok()) << status.message();
  }
  void ExpectLoadError(const std::string& part, LoadOptions options = {}) {
    const auto model = Model::Load(dir_, options);
    ASSERT_FALSE(model.ok());
    EXPECT_NE(model.status().message().find(part), std::string::npos) << model.status().message();
  }

  std::string dir_;
};

void ExpectSameWeights(const Model& a, const Model& b) {
  for (const WeightId& id : ListWeights(a.config())) {
    SCOPED_TRACE(HfName(a.config(), id));
    int64_t count = 1;
    for (int64_t d : ShapeOf(a.config(), id)) count *= d;
    const auto data = [&](const Model& m) {
      return id.is_matrix() ? static_cast<const float*>(MatrixOf(m.weights(), id).data)
                            : VectorOf(m.weights(), id);
    };
    for (int64_t i = 0; i < count; ++i) ASSERT_EQ(data(a)[i], data(b)[i]) << i;
  }
}

void ExpectSameConfig(const ModelConfig& a, const ModelConfig& b) {
  EXPECT_EQ(ConfigToHf(a, DType::kF32), ConfigToHf(b, DType::kF32));
  EXPECT_EQ(a.qkv_bias, b.qkv_bias);
  EXPECT_EQ(a.norm_plus_one, b.norm_plus_one);
  EXPECT_EQ(a.qk_norm, b.qk_norm);
  EXPECT_EQ(a.sandwich_norms, b.sandwich_norms);
  EXPECT_EQ(a.embed_scale, b.embed_scale);
  EXPECT_FLOAT_EQ(a.attn_scale, b.attn_scale);
  ASSERT_EQ(a.layers.size(), b.layers.size());
  for (size_t i = 0; i < a.layers.size(); ++i) {
    EXPECT_EQ(a.layers[i].window, b.layers[i].window);
    EXPECT_EQ(a.layers[i].rope, b.layers[i].rope);
  }
}

// The tiny models under the names of architectures that have their flags.
std::vector<ModelConfig> NamedTinyModels() {
  const char* names[][2] = {{"LlamaForCausalLM", "llama"},
                            {"LlamaForCausalLM", "llama"},
                            {"MistralForCausalLM", "mistral"},
                            {"Qwen3ForCausalLM", "qwen3"},
                            {"Gemma3ForCausalLM", "gemma3_text"}};
  std::vector<ModelConfig> configs;
  for (testing::TinyModel& tiny : testing::TinyModels()) {
    tiny.config.architecture = names[configs.size()][0];
    tiny.config.model_type = names[configs.size()][1];
    configs.push_back(tiny.config);
  }
  return configs;
}

TEST_F(Files, SavedModelsLoadAsTheyWere) {
  for (const ModelConfig& config : NamedTinyModels()) {
    SCOPED_TRACE(config.architecture);
    const auto model = testing::MakeTinyModel(config);
    std::filesystem::remove_all(dir_);
    const Status saved = SaveHfModel(PosixEnv(), *model, DType::kF32,
                                     ConfigToHf(config, DType::kF32), {{"x.txt", "x"}}, dir_);
    ASSERT_TRUE(saved.ok()) << saved.message();
    EXPECT_TRUE(std::filesystem::exists(dir_ + "/x.txt"));
    auto loaded = Model::Load(dir_, {StorageDType::kAsStored, true});
    ASSERT_TRUE(loaded.ok()) << loaded.status().message();
    EXPECT_TRUE((*loaded)->notes().empty());
    ExpectSameConfig((*loaded)->config(), config);
    ExpectSameWeights(**loaded, *model);
    EXPECT_EQ((*loaded)->weight_bytes(), 4 * config.parameter_count());
    auto half = Model::Load(dir_, {StorageDType::kBF16, false});
    ASSERT_TRUE(half.ok());
    EXPECT_LT((*half)->weight_bytes(), (*loaded)->weight_bytes());
  }
}

TEST_F(Files, PartsLoadAlone) {
  for (const ModelConfig& config : NamedTinyModels()) {
    SCOPED_TRACE(config.architecture);
    const auto model = testing::MakeTinyModel(config);
    std::filesystem::remove_all(dir_);
    ASSERT_TRUE(
        SaveHfModel(PosixEnv(), *model, DType::kF32, ConfigToHf(config, DType::kF32), {}, dir_)
            .ok());
    LoadOptions options;
    options.only = [](const WeightId& id) { return id.layer == 1; };
    const auto part = Model::Load(dir_, options);
    ASSERT_TRUE(part.ok()) << part.status().message();
    EXPECT_TRUE((*part)->notes().empty());
    for (const WeightId& id : ListWeights(config)) {
      SCOPED_TRACE(HfName(config, id));
      const ModelWeights& w = (*part)->weights();
      const void* data = id.is_matrix() ? MatrixOf(w, id).data : VectorOf(w, id);
      ASSERT_EQ(data != nullptr, id.layer == 1);
      if (data == nullptr) continue;
      EXPECT_EQ(*static_cast<const float*>(data), *model->MutableData(id));
    }
    EXPECT_LT((*part)->weight_bytes(), model->weight_bytes() / 2);
  }
}

TEST_F(Files, WhatDoesNotFitIsNamed) {
  const ModelConfig config = testing::TinyLlama();
  const auto model = testing::MakeTinyModel(config);
  const Tensors good = TensorsOf(*model);
  const std::string name = "model.layers.1.mlp.up_proj.weight";

  Tensors tensors = good;
  tensors.erase(name);
  WriteHf(config, tensors);
  ExpectLoadError(name);

  const std::vector<float> values(32 * 16, 1.0f);
  tensors[name] = formats::MakeFloatTensor({32, 16}, values.data());
  WriteHf(config, tensors);
  ExpectLoadError(name + " has shape [32, 16], but the config says [24, 16]");

  tensors = good;
  tensors[name] = formats::MakeFloatTensor({24, 16}, values.data());
  const_cast<float*>(static_cast<const float*>(tensors[name].view.data))[5] =
      std::numeric_limits<float>::quiet_NaN();
  WriteHf(config, tensors);
  EXPECT_TRUE(Model::Load(dir_).ok());
  ExpectLoadError(name + " holds NaN", {StorageDType::kAsStored, true});

  tensors = good;
  tensors[name].view.dtype = DType::kI32;
  WriteHf(config, tensors);
  ExpectLoadError(name + " is stored as I32");

  tensors = good;
  tensors["model.layers.0.extra.weight"] = good.at(name);
  tensors["lm_head.weight"] = good.at("model.embed_tokens.weight");  // of a tied model
  tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = good.at("model.norm.weight");
  WriteHf(config, tensors);
  auto noted = Model::Load(dir_);
  ASSERT_TRUE(noted.ok());
  ASSERT_EQ((*noted)->notes().size(), 1u);
  EXPECT_NE((*noted)->notes()[0].find("extra"), std::string::npos);

  ModelConfig wider = config;
  wider.vocab = 1 << 24;
  WriteHf(wider, good);
  ExpectLoadError("model.embed_tokens.weight has shape");
}

TEST_F(Files, MissingPathsAreNamed) {
  EXPECT_FALSE(Model::Load(dir_ + "/nowhere").ok());
  ExpectLoadError("config.json");
}

// A GGUF file of a Llama model: rows of q and k interleaved per head.
Status WriteGguf(const ModelConfig& c, const Tensors& tensors, const std::vector<float>& divisors,
                 const std::string& path, const ModelConfig* metadata = nullptr) {
  formats::GgufWriter w;
  const ModelConfig& m = metadata == nullptr ? c : *metadata;
  const auto u32 = [](int64_t v) { return static_cast<uint32_t>(v); };
  EW_RETURN_IF_ERROR(w.SetString("general.architecture", "llama"));
  EW_RETURN_IF_ERROR(w.SetU32("llama.embedding_length", u32(m.hidden)));
  EW_RETURN_IF_ERROR(w.SetU32("llama.feed_forward_length", u32(m.ffn)));
  EW_RETURN_IF_ERROR(w.SetU32("llama.block_count", u32(m.num_layers())));
  EW_RETURN_IF_ERROR(w.SetU32("llama.attention.head_count", u32(m.heads)));
  EW_RETURN_IF_ERROR(w.SetU32("llama.attention.head_count_kv", u32(m.kv_heads)));
  EW_RETURN_IF_ERROR(w.SetU32("llama.context_length", u32(m.max_positions)));
  EW_RETURN_IF_ERROR(w.SetF32("llama.attention.layer_norm_rms_epsilon", 1e-6f));
  for (const WeightId& id : ListWeights(c)) {
    HostTensor tensor = tensors.at(HfName(c, id));
    const bool q = id.role == WeightRole::kLinear && id.kind == LinearKind::kQ;
    const bool k = id.role == WeightRole::kLinear && id.kind == LinearKind::kK;
    if (q || k) {
      const auto* in = static_cast<const float*>(tensor.view.data);
      std::vector<float> rows(static_cast<size_t>(tensor.view.elements()));
      const int64_t heads = q ? c.heads : c.kv_heads, half = c.head_dim / 2;
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t d = 0; d < c.head_dim; ++d) {
          const int64_t to = h * c.head_dim + d % half * 2 + d / half;
          std::copy_n(in + (h * c.head_dim + d) * c.hidden, c.hidden,
                      &rows[static_cast<size_t>(to * c.hidden)]);
        }
      }
      tensor = formats::MakeFloatTensor(tensor.view.shape, rows.data());
    }
    EW_RETURN_IF_ERROR(w.AddTensor(GgufName(id), formats::GgmlType::kF32, tensor));
  }
  if (!divisors.empty()) {
    EW_RETURN_IF_ERROR(w.AddTensor(
        "rope_freqs.weight", formats::GgmlType::kF32,
        formats::MakeFloatTensor({static_cast<int64_t>(divisors.size())}, divisors.data())));
  }
  return w.Write(PosixEnv(), path);
}

TEST_F(Files, GgufRowsAndRopeFactors) {
  const ModelConfig config = testing::TinyLlama();
  const auto model = testing::MakeTinyModel(config);
  const Tensors tensors = TensorsOf(*model);
  const std::string path = dir_ + "/model.gguf";
  Status written = WriteGguf(config, tensors, {1.0f, 8.0f}, path);
  ASSERT_TRUE(written.ok()) << written.message();
  auto loaded = Model::Load(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  ExpectSameWeights(**loaded, *model);
  EXPECT_TRUE((*loaded)->config().tied);
  EXPECT_EQ((*loaded)->config().ropes[0].divisors, (std::vector<float>{1.0f, 8.0f}));
  // A table of frequencies has no place in config.json.
  EXPECT_FALSE(SaveHfModel(PosixEnv(), **loaded, DType::kF32,
                           ConfigToHf((*loaded)->config(), DType::kF32), {}, dir_ + "/out")
                   .ok());

  for (const std::vector<float>& bad : {std::vector<float>{1.0f}, std::vector<float>{1.0f, 0.0f}}) {
    ASSERT_TRUE(WriteGguf(config, tensors, bad, path).ok());
    const auto broken = Model::Load(path);
    ASSERT_FALSE(broken.ok());
    EXPECT_NE(broken.status().message().find("rope"), std::string::npos);
  }

  // Sizes that do not belong together.
  for (auto change : {+[](ModelConfig& c) { c.kv_heads = 3; }, +[](ModelConfig& c) { c.heads = 0; },
                      +[](ModelConfig& c) { c.ffn = 25; }}) {
    ModelConfig uneven = config;
    change(uneven);
    // The file has the tensors of `config`, the metadata of `uneven`.
    ASSERT_TRUE(WriteGguf(config, tensors, {}, path, &uneven).ok());
    EXPECT_FALSE(Model::Load(path).ok());
  }
}

TEST(RandomModel, IsAFunctionOfTheSeed) {
  const ModelConfig config = testing::TinyLlama();
  auto a = Model::Random(config, 1), b = Model::Random(config, 1), c = Model::Random(config, 2);
  ASSERT_TRUE(a.ok() && b.ok() && c.ok());
  ExpectSameWeights(**a, **b);
  const auto first = [](const Model& m) {
    return *static_cast<const float*>(m.weights().embedding.data);
  };
  EXPECT_NE(first(**a), first(**c));
  EXPECT_EQ((*a)->weights().embedding.data, (*a)->weights().head.data);
  EXPECT_FALSE(Model::Random(config, 1, DType::kI8).ok());
}

}  // namespace
}  // namespace edgewise::model
