// How fast the kernels run on every form of weights.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "kernels/loss.h"
#include "kernels/packed/packed_matrix.h"
#include "schedule/measure.h"

namespace edgewise::schedule {
namespace {

using kernels::WeightRef;
using plan::KernelKind;
using plan::KernelRate;

constexpr int64_t kTokens = 512;
constexpr int64_t kSizes[] = {576, 2048};  // a small and a large model's hidden size

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of the fastest of several runs; the first one, which touches memory, does not count.
template <typename Fn>
double Best(Fn fn) {
  fn();
  double best = 1e30, spent = 0;
  for (int run = 0; run < 12 && (run < 4 || spent < 0.06); ++run) {
    const double start = Now();
    fn();
    const double took = Now() - start;
    best = std::min(best, took);
    spent += took;
  }
  return best;
}

FloatBuffer RandomFloats(int64_t n, uint64_t seed) {
  FloatBuffer out(n);
  Rng rng(seed, RngStream::kTest);
  for (int64_t i = 0; i < n; ++i) out[i] = rng.NextFloat() - 0.5f;
  return out;
}

// Zeros in single weights, or in blocks of 16 x 64.
void Prune(int64_t size, bool blocks, FloatBuffer& w) {
  Rng rng(3, RngStream::kTest);
  std::vector<uint8_t> block(static_cast<size_t>(size / 16 * (size / 64 + 1)));
  for (uint8_t& b : block) b = rng.NextFloat() < 0.5f;
  for (int64_t r = 0; r < size; ++r) {
    for (int64_t c = 0; c < size; ++c) {
      const bool gone = blocks ? block[static_cast<size_t>(r / 16 * (size / 64 + 1) + c / 64)] != 0
                               : rng.NextFloat() < 0.5f;
      if (gone) w[r * size + c] = 0;
    }
  }
}

class KernelMeter {
 public:
  KernelMeter(ExecContext& ctx, int64_t size)
      : ctx_(ctx),
        size_(size),
        w_(RandomFloats(size * size, 1)),
        x_(RandomFloats(kTokens * size, 2)),
        y_(kTokens * size) {}

  void Linear(const WeightRef& w, KernelRate rate, std::vector<KernelRate>* out) {
    rate.out = rate.in = size_;
    const double work = 2.0 * static_cast<double>(size_) * static_cast<double>(size_) * 1e-9;
    for (int64_t tokens : {kTokens, int64_t{1}}) {
      rate.kind = KernelKind::kLinearForward;
      rate.tokens = tokens;
      rate.gops =
          work * static_cast<double>(tokens) / Best([&] {
            kernels::LinearForward(ctx_, tokens, x_.data(), size_, w, nullptr, y_.data(), size_);
          });
      out->push_back(rate);
    }
    rate.kind = KernelKind::kLinearBackward;
    rate.tokens = kTokens;
    rate.gops =
        work * kTokens / Best([&] {
          kernels::LinearBackwardInput(ctx_, kTokens, x_.data(), size_, w, y_.data(), size_);
        });
    out->push_back(rate);
  }

  void Dense(std::vector<KernelRate>* out) {
    KernelRate rate;
    Linear(WeightRef::Dense(w_.data(), size_, size_), rate, out);
    AlignedBuffer half(static_cast<size_t>(size_ * size_) * 2);
    ConvertFromF32(DType::kBF16, w_.data(), half.data(), size_ * size_);
    rate.bits = 16;
    Linear({size_, size_, DType::kBF16, half.data(), size_, nullptr}, rate, out);
    FloatBuffer dw = FloatBuffer::Zeros(size_ * size_);
    rate = {KernelKind::kWeightGradient, 32, 0, false, kTokens, size_, size_, 0};
    const double work =
        2.0 * kTokens * static_cast<double>(size_) * static_cast<double>(size_) * 1e-9;
    rate.gops = work / Best([&] {
                  kernels::LinearBackwardWeight(ctx_, kTokens, size_, size_, x_.data(), size_,
                                                y_.data(), size_, dw.data(), nullptr);
                });
    out->push_back(rate);
  }

  void Packed(int bits, double sparsity, bool blocks, std::vector<KernelRate>* out) {
    kernels::PackedFormat f;
    f.rows = f.cols = size_;
    f.bits = bits;
    f.group = 128;
    if (sparsity > 0) {
      f.structure = blocks ? kernels::Structure::kBlock : kernels::Structure::kUnstructured;
      if (blocks) f.block_cols = 64;
      f.group = 0;
    }
    FloatBuffer w(size_ * size_);
    std::copy_n(w_.data(), w_.size(), w.data());
    if (sparsity > 0) Prune(size_, blocks, w);
    Result<kernels::PackedMatrix> packed = kernels::Pack(f, w.data(), size_);
    if (!packed.ok()) return;
    KernelRate rate;
    rate.bits = bits;
    rate.sparsity = sparsity;
    rate.blocks = blocks;
    Linear(packed->Ref(), rate, out);
  }

  void Lora(std::vector<KernelRate>* out) {
    constexpr int64_t r = 8;
    FloatBuffer a = RandomFloats(r * size_, 4), b = RandomFloats(size_ * r, 5);
    FloatBuffer da = FloatBuffer::Zeros(r * size_), db = FloatBuffer::Zeros(size_ * r);
    FloatBuffer xa(kTokens * r), dxa(kTokens * r), dx = FloatBuffer::Zeros(kTokens * size_);
    y_.Zero();
    const double seconds = Best([&] {
      kernels::LoraForward(ctx_, kTokens, size_, size_, r, 0.1f, x_.data(), size_, a.data(),
                           b.data(), xa.data(), y_.data(), size_);
      kernels::LoraBackward(ctx_, kTokens, size_, size_, r, 0.1f, x_.data(), size_, xa.data(),
                            a.data(), b.data(), y_.data(), size_, dxa.data(), da.data(), db.data(),
                            dx.data(), size_);
    });
    // Two products forward, four backward.
    const double work = 6 * 2.0 * kTokens * r * static_cast<double>(size_) * 1e-9;
    out->push_back({KernelKind::kLora, 32, 0, false, kTokens, size_, size_, work / seconds});
  }

  void Head(std::vector<KernelRate>* out) {
    const int64_t vocab = 8192;
    FloatBuffer head = RandomFloats(vocab * size_, 6);
    std::vector<int32_t> targets(kTokens);
    for (int64_t t = 0; t < kTokens; ++t) {
      targets[static_cast<size_t>(t)] = static_cast<int32_t>(t * 7 % vocab);
    }
    kernels::HeadLossArgs args;
    args.tokens = kTokens;
    args.hidden = x_.data();
    args.targets = targets.data();
    args.grad_scale = 1.0f / kTokens;
    args.dhidden = y_.data();
    // Counted as the product and its gradient.
    const double work =
        4.0 * kTokens * static_cast<double>(vocab) * static_cast<double>(size_) * 1e-9;
    const auto measure = [&](const WeightRef& w, int bits) {
      args.head = w;
      const double seconds = Best([&] { kernels::HeadLoss(ctx_, args); });
      out->push_back(
          {KernelKind::kHeadLoss, bits, 0, false, kTokens, vocab, size_, work / seconds});
    };
    measure(WeightRef::Dense(head.data(), vocab, size_), 32);
    AlignedBuffer half(static_cast<size_t>(vocab * size_) * 2);
    ConvertFromF32(DType::kBF16, head.data(), half.data(), vocab * size_);
    measure({vocab, size_, DType::kBF16, half.data(), size_, nullptr}, 16);
    for (int bits : {4, 8}) {
      kernels::PackedFormat f;
      f.rows = vocab;
      f.cols = size_;
      f.bits = bits;
      f.group = 128;
      Result<kernels::PackedMatrix> packed = kernels::Pack(f, head.data(), size_);
      if (packed.ok()) measure(packed->Ref(), bits);
    }
  }

 private:
  ExecContext& ctx_;
  int64_t size_;
  FloatBuffer w_, x_, y_;
};

void MeasureAttention(ExecContext& ctx, std::vector<KernelRate>* out) {
  constexpr int64_t heads = 16, kv = 4, dim = 64, q = heads * dim, k = kv * dim;
  const kernels::AttentionShape shape{heads, kv, dim, 0.125f, 0};
  const std::vector<int32_t> first(kTokens, 0);
  const kernels::AttentionMask mask{first.data(), 0};
  FloatBuffer qs = RandomFloats(kTokens * q, 1), ks = RandomFloats(kTokens * k, 2),
              vs = RandomFloats(kTokens * k, 3), os(kTokens * q), lse(heads * kTokens);
  const double scores = 0.5 * static_cast<double>(kTokens) * kTokens * q * 1e-9;
  const double forward = Best([&] {
    kernels::AttentionForward(ctx, shape, mask, kTokens, qs.data(), q, ks.data(), vs.data(), k,
                              os.data(), q, lse.data());
  });
  out->push_back({KernelKind::kAttention, 32, 0, false, kTokens, q, k, 4 * scores / forward});
  FloatBuffer dout = RandomFloats(kTokens * q, 4), dq(kTokens * q), dk(kTokens * k),
              dv(kTokens * k);
  const double backward = Best([&] {
    kernels::AttentionBackward(ctx, shape, mask, kTokens, qs.data(), q, ks.data(), vs.data(), k,
                               os.data(), dout.data(), q, lse.data(), dq.data(), q, dk.data(),
                               dv.data(), k);
  });
  out->push_back(
      {KernelKind::kAttentionBackward, 32, 0, false, kTokens, q, k, 10 * scores / backward});
}

// Bytes a second of the gated unit, forward and backward: three and five arrays.
void MeasureElementwise(ExecContext& ctx, std::vector<KernelRate>* out) {
  constexpr int64_t n = kTokens * 4096;
  FloatBuffer gate = RandomFloats(n, 1), up = RandomFloats(n, 2), y = RandomFloats(n, 3);
  const double seconds = Best([&] {
    kernels::GatedForward(ctx, kernels::Activation::kSilu, n, gate.data(), up.data(), y.data());
    kernels::GatedBackward(ctx, kernels::Activation::kSilu, n, gate.data(), up.data(), y.data(),
                           gate.data(), up.data());
  });
  out->push_back(
      {KernelKind::kElementwise, 32, 0, false, kTokens, n / kTokens, 0, 8.0 * n * 4e-9 / seconds});
}

}  // namespace

std::vector<KernelRate> MeasureKernels(ExecContext& ctx,
                                       const std::function<void(std::string_view)>& progress) {
  std::vector<KernelRate> out;
  for (int64_t size : kSizes) {
    if (progress) progress(fmt::format("kernels on {} x {} weights", size, size));
    KernelMeter meter(ctx, size);
    meter.Dense(&out);
    for (int bits : {2, 3, 4, 5, 6, 8}) {
      meter.Packed(bits, 0, false, &out);
      meter.Packed(bits, 0.5, false, &out);
      meter.Packed(bits, 0.5, true, &out);
    }
    meter.Lora(&out);
    meter.Head(&out);
  }
  MeasureAttention(ctx, &out);
  MeasureElementwise(ctx, &out);
  return out;
}

}  // namespace edgewise::schedule
