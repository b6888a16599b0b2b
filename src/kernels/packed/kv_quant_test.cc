#include "kernels/packed/kv_quant.h"

#include <gtest/gtest.h>

#include <cmath>

#include "base/rng.h"

namespace edgewise::kernels {
namespace {

constexpr uint64_t kSeed = 99;

std::unique_ptr<ExecContext> Context(Isa isa, int threads) {
  ExecOptions options;
  options.threads = threads;
  options.isa = &isa;
  return std::move(ExecContext::Create(options)).value();
}

std::vector<float> Random(int64_t n, Rng& rng) {
  std::vector<float> x(static_cast<size_t>(n));
  for (float& v : x) v = static_cast<float>(rng.NextNormal());
  return x;
}

constexpr KvType kTypes[] = {KvType::kF16, KvType::kInt8, KvType::kInt4};

TEST(KvQuant, RoundTripIsWithinHalfAStep) {
  for (const Isa isa : SupportedIsas()) {
    const auto ctx = Context(isa, 2);
    for (const KvType type : kTypes) {
      for (const int64_t n : {1, 2, 7, 16, 64, 80, 128}) {
        SCOPED_TRACE(std::string(IsaName(isa)) + " type " + std::to_string(static_cast<int>(type)) +
                     " dim " + std::to_string(n));
        const int64_t rows = 37, heads = 3;
        Rng rng(kSeed, RngStream::kTest, static_cast<uint64_t>(n));
        const std::vector<float> x = Random(rows * heads * n, rng);
        std::vector<uint8_t> bytes(static_cast<size_t>(rows * KvRowBytes(type, heads, n)));
        std::vector<float> y(x.size());
        KvEncode(*ctx, type, rows, heads, n, x.data(), heads * n, bytes.data());
        KvDecode(*ctx, type, rows, heads, n, bytes.data(), y.data());
        for (int64_t h = 0; h < rows * heads; ++h) {
          float max = 0;
          for (int64_t i = 0; i < n; ++i) {
            max = std::max(max, std::fabs(x[static_cast<size_t>(h * n + i)]));
          }
          // Half a step of the grid, and 2^-11 of the range for each fp16 number.
          const float step = type == KvType::kF16    ? 0.0f
                             : type == KvType::kInt8 ? max / 127
                                                     : 2 * max / 15;
          const float bound = 0.5f * step * (1 + 0x1p-9f) + 3 * 0x1p-11f * max + 1e-7f;
          for (int64_t i = 0; i < n; ++i) {
            const auto at = static_cast<size_t>(h * n + i);
            ASSERT_NEAR(y[at], x[at], bound);
          }
        }
      }
    }
  }
}

TEST(KvQuant, AttentionEqualsThatOnDecodedRows) {
  for (const Isa isa : SupportedIsas()) {
    for (const KvType type : kTypes) {
      SCOPED_TRACE(std::string(IsaName(isa)) + " type " + std::to_string(static_cast<int>(type)));
      AttentionShape shape;
      shape.q_heads = 6;
      shape.kv_heads = 2;
      shape.head_dim = 72;
      shape.scale = 0.2f;
      const int64_t n = 72, len = 150, first = 9;
      Rng rng(kSeed, RngStream::kTest);
      const std::vector<float> k = Random(len * 2 * n, rng), v = Random(len * 2 * n, rng);
      const std::vector<float> q = Random(6 * n, rng);
      const auto row = static_cast<size_t>(KvRowBytes(type, 2, n));
      std::vector<uint8_t> kq(len * row), vq(len * row);
      std::vector<float> kd(k.size()), vd(v.size()), out(q.size()), again(q.size());
      const auto ctx = Context(isa, 1), two = Context(isa, 2);
      KvEncode(*ctx, type, len, 2, n, k.data(), 2 * n, kq.data());
      KvEncode(*ctx, type, len, 2, n, v.data(), 2 * n, vq.data());
      KvDecode(*ctx, type, len, 2, n, kq.data(), kd.data());
      KvDecode(*ctx, type, len, 2, n, vq.data(), vd.data());
      KvAttention(*ctx, shape, type, q.data(), first, len, kq.data(), vq.data(), out.data());
      KvAttention(*two, shape, type, q.data(), first, len, kq.data(), vq.data(), again.data());
      EXPECT_EQ(out, again);
      for (int64_t h = 0; h < 6; ++h) {
        std::vector<double> p(static_cast<size_t>(len));
        double sum = 0, largest = 0;
        for (int64_t j = first; j < len; ++j) {
          double s = 0;
          for (int64_t i = 0; i < n; ++i) {
            s += static_cast<double>(q[static_cast<size_t>(h * n + i)]) *
                 kd[static_cast<size_t>((j * 2 + h / 3) * n + i)];
          }
          p[static_cast<size_t>(j)] = std::exp(0.2 * s);
          sum += p[static_cast<size_t>(j)];
          largest = std::max(largest, std::fabs(0.2 * s));
        }
        for (int64_t i = 0; i < n; ++i) {
          double want = 0, magnitude = 0;
          for (int64_t j = first; j < len; ++j) {
            const double term =
                p[static_cast<size_t>(j)] / sum * vd[static_cast<size_t>((j * 2 + h / 3) * n + i)];
            want += term;
            magnitude += std::fabs(term);
          }
          // Scores are sums of 72 products of magnitude up to about 10 largest scores; their error
          // is that of the weights' exponents. Then a sum over the keys.
          const double bound = (72 * 10 * largest + len + 8) * 0x1p-24 * (magnitude + 1e-3);
          ASSERT_NEAR(out[static_cast<size_t>(h * n + i)], want, bound);
        }
      }
    }
  }
}

TEST(KvQuant, WhatIsNotFiniteIsSeen) {
  const auto ctx = Context(Isa::kGeneric, 1);
  for (const KvType type : kTypes) {
    std::vector<float> x(32, 1.0f), y(32);
    x[3] = INFINITY;
    std::vector<uint8_t> row(static_cast<size_t>(KvRowBytes(type, 2, 16)));
    KvEncode(*ctx, type, 1, 2, 16, x.data(), 32, row.data());
    KvDecode(*ctx, type, 1, 2, 16, row.data(), y.data());
    EXPECT_FALSE(std::isfinite(y[3]));
    EXPECT_TRUE(std::isfinite(y[20]));
  }
}

}  // namespace
}  // namespace edgewise::kernels
