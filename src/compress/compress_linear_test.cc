// What compressed linears cost in bytes, on disk and in memory.
#include "compress/compress_linear.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "base/rng.h"
#include "compress/partial_layers.h"
#include "exec/memory.h"
#include "formats/safetensors_writer.h"
#include "io/env.h"
#include "model/model.h"
#include "model/packed_base.h"
#include "model/save.h"

namespace edgewise::compress {
namespace {

std::unique_ptr<ExecContext> Context() {
  auto ctx = ExecContext::Create();
  EXPECT_TRUE(ctx.ok());
  return std::move(*ctx);
}

std::vector<float> RandomMatrix(int64_t n, uint64_t seed) {
  Rng rng(seed, RngStream::kTest);
  std::vector<float> w(static_cast<size_t>(n));
  for (float& x : w) x = static_cast<float>(rng.NextNormal()) * 0.02f;
  return w;
}

CompressOptions Quick(int64_t group, const std::string& pattern = "unstructured") {
  CompressOptions o;
  o.policy.group = group;
  o.policy.pattern = pattern;
  o.pruner = Pruner::kMagnitude;
  o.quantizer = Quantizer::kRtn;
  return o;
}

// 4 bits at 50%: 1 bit of mask, 2 of values, 16 per group of scales, and headers.
TEST(CompressLinear, FourBitsHalfSparseTakeAFifthOfBf16) {
  const auto ctx = Context();
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1536, 576}, {512, 2048}}) {
    const std::vector<float> w = RandomMatrix(rows * cols, 5);
    std::vector<float> h(static_cast<size_t>(cols * cols), 0.0f);
    for (int64_t i = 0; i < cols; ++i) h[static_cast<size_t>(i * cols + i)] = 1.0f;
    for (const int64_t group : {64, 128}) {
      const auto r = CompressLinear(*ctx, w.data(), h.data(), rows, cols, {4, 0.5}, Quick(group));
      ASSERT_TRUE(r.ok()) << r.status().message();
      const auto bytes = static_cast<double>(r->matrix.bytes().size());
      EXPECT_LE(bytes / (2.0 * static_cast<double>(rows * cols)), 0.205) << rows << " " << group;
      const auto predicted =
          static_cast<double>(PackedBytes(rows, cols, {4, 0.5}, group, "unstructured"));
      EXPECT_NEAR(bytes / predicted, 1.0, 0.003);
    }
  }
}

// Loading maps: what becomes resident is what is read, not the file.
TEST(PackedBaseMemory, LoadingTouchesLittleAndUseTouchesWhatItReads) {
  namespace fs = std::filesystem;
  model::ModelConfig config;
  {
    auto named = model::NamedShape("smollm2-135m");
    ASSERT_TRUE(named.ok());
    config = *std::move(named);
  }
  config.layers.resize(6);
  config.vocab = 2048;
  const auto ctx = Context();
  const fs::path dir = fs::temp_directory_path() /
                       ("edgewise-packed-" + std::to_string(static_cast<long>(::getpid())));
  fs::create_directories(dir);
  int64_t linear_bytes = 0;
  {
    const auto model = model::Model::Random(config, 3);
    ASSERT_TRUE(model.ok()) << model.status().message();
    formats::SafetensorsWriter writer;
    for (const model::WeightId& id : model::ListWeights(config)) {
      const std::string name = model::HfName(config, id);
      const auto shape = model::ShapeOf(config, id);
      if (id.role != model::WeightRole::kLinear) {
        ASSERT_TRUE(
            writer.Add(name, DType::kF32, shape, model::WeightProducer(**model, id, DType::kF32))
                .ok());
        continue;
      }
      const auto* w = static_cast<const float*>(model::MatrixOf((*model)->weights(), id).data);
      const std::vector<float> h(static_cast<size_t>(shape[1] * shape[1]), 0.0f);
      auto r = CompressLinear(*ctx, w, h.data(), shape[0], shape[1], {4, 0.5}, Quick(64));
      ASSERT_TRUE(r.ok()) << r.status().message();
      HostTensor bytes = BytesTensor(std::move(r->matrix));
      linear_bytes += bytes.view.bytes();
      ASSERT_TRUE(writer.Add(model::PackedName(name), std::move(bytes)).ok());
    }
    ASSERT_TRUE(writer.Write(PosixEnv(), (dir / model::kPackedFile).string()).ok());
    ASSERT_TRUE(WriteFileAtomic(PosixEnv(), (dir / "config.json").string(),
                                model::ConfigToHf(config, DType::kF32))
                    .ok());
  }
  const auto file_pages = [] {
    const ProcessMemory m = ReadProcessMemory();
    return m.rss_bytes - m.anon_bytes;
  };
  const ProcessMemory before = ReadProcessMemory();
  if (before.rss_bytes == 0) GTEST_SKIP() << "the system does not tell";
  const int64_t file_before = file_pages();
  auto loaded = model::Model::Load(dir.string());
  ASSERT_TRUE(loaded.ok()) << loaded.status().message();
  const int64_t loading = file_pages() - file_before;
  EXPECT_LT(loading, linear_bytes / 5) << "of " << linear_bytes;

  const model::WeightId id{model::WeightRole::kLinear, 3, model::LinearKind::kGate};
  const kernels::WeightRef& w = model::MatrixOf((*loaded)->weights(), id);
  std::vector<float> row(static_cast<size_t>(w.rows * w.cols));
  w.packed->UnpackRows(0, w.rows, row.data(), w.cols);
  const int64_t one = static_cast<int64_t>(w.packed->bytes().size());
  const int64_t used = file_pages() - file_before - loading;
  // Pages are brought in with their neighbours: up to 64 KiB at either end.
  EXPECT_GE(used, one / 2);
  EXPECT_LE(used, one + (256 << 10));
  fs::remove_all(dir);
}

}  // namespace
}  // namespace edgewise::compress
