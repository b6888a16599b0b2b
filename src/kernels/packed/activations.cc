#include "kernels/packed/activations.h"

#include <algorithm>
#include <cassert>

#include "base/checked.h"
#include "base/rng.h"

namespace edgewise::kernels {
namespace {

// Rows that one thread rounds before waking the others would pay.
constexpr int64_t kSerialElements = 16384;

// Noise of a row: Int8Table::noise_row from where the Philox block with counter (row, substream)
// under the key (seed) says; a Philox block for every few columns would cost as much as the
// product.
void FillNoise(const Int8Table& table, uint64_t seed, uint64_t substream, int64_t row, int64_t cols,
               float* noise) {
  const std::array<uint32_t, 2> key = {
      static_cast<uint32_t>(seed) ^ (static_cast<uint32_t>(RngStream::kRounding) * 0x85EBCA6Bu),
      static_cast<uint32_t>(seed >> 32) ^
          (static_cast<uint32_t>(RngStream::kRounding) * 0xC2B2AE35u)};
  const std::array<uint32_t, 4> block =
      Philox4x32({0, static_cast<uint32_t>(row), static_cast<uint32_t>(substream),
                  static_cast<uint32_t>(substream >> 32)},
                 key);
  // Odd steps reach every number, each row in an order of its own.
  table.noise_row(block[0], block[1] | 1, cols, noise);
}

// Row `row` of the tables.
void Correct(const QuantizePlan& p, int64_t row, const int32_t* sums, void* memory) {
  for (int i = 0; i < p.corrected_count; ++i) {
    const QuantizePlan::Corrected& c = p.corrected[i];
    auto* out = reinterpret_cast<int32_t*>(static_cast<uint8_t*>(memory) + c.bytes_before) +
                row / kMaxProductRows * c.stride + row % kMaxProductRows;
    const int64_t step = c.width / kSumCols;
    for (int64_t s = 0; s < c.segments; ++s) {
      out[s * kCorrectionRows] = SumCorrection(c.zero, sums[(s + 1) * step] - sums[s * step]);
    }
  }
}

template <typename Rows>
void EachBlock(ExecContext& ctx, const QuantizePlan& p, const Rows& rows) {
  if (p.m * p.cols <= kSerialElements) return rows(0, p.m, 0);
  ctx.ParallelFor(p.m, 4, rows);
}

}  // namespace

QuantizePlan QuantizePlan::Make(int64_t m, int64_t cols, int64_t group, int64_t multiple) {
  QuantizePlan p;
  p.m = m;
  p.cols = cols;
  p.group = group < cols ? group : 0;
  p.padded = RoundUp(cols, multiple);
  // Rows a multiple of 4 KiB apart would share few sets of the level 1 cache.
  p.stride = p.padded % 1024 == 0 ? p.padded + 64 : p.padded;
  p.sums_stride = RoundUp(p.padded / kSumCols + 1, 16);
  p.scales_stride = p.group == 0 ? 1 : CeilDiv(cols, p.group);
  p.bytes =
      RoundUp(m * p.stride, 64) + m * p.sums_stride * 4 + RoundUp(m * p.scales_stride * 4, 64);
  return p;
}

int QuantizePlan::AddCorrections(int zero, int64_t width) {
  for (int i = 0; i < corrected_count; ++i) {
    if (corrected[i].zero == zero && corrected[i].width == width) return i;
  }
  assert(corrected_count < static_cast<int>(kMaxTargets));
  Corrected& c = corrected[corrected_count];
  c.zero = zero;
  c.width = width;
  c.segments = padded / width;
  c.stride = c.segments * kCorrectionRows;
  c.bytes_before = bytes;
  bytes += RoundUp(CeilDiv(m, int64_t{kMaxProductRows}) * c.stride * 4, 64);
  return corrected_count++;
}

QuantizedRows QuantizedRows::At(const QuantizePlan& p, void* memory) {
  if (p.bytes == 0) return {};
  const auto* q = static_cast<int8_t*>(memory);
  const auto* sums = reinterpret_cast<const int32_t*>(q + RoundUp(p.m * p.stride, 64));
  const auto* scales = reinterpret_cast<const float*>(sums + p.m * p.sums_stride);
  QuantizedRows rows = {q,      p.stride,        sums,         p.sums_stride,
                        scales, p.scales_stride, p.group != 0, {}};
  for (int i = 0; i < p.corrected_count; ++i) {
    rows.corrections[i] = reinterpret_cast<const int32_t*>(q + p.corrected[i].bytes_before);
  }
  return rows;
}

void RoundRow(ExecContext& ctx, const float* x, int64_t cols, int64_t group, int64_t row,
              const QuantizedRows& rows) {
  QuantizeRow r;
  r.x = x;
  r.cols = cols;
  r.padded = RoundUp(cols, 64);
  r.group = rows.grouped ? group : 0;
  r.q = const_cast<int8_t*>(rows.q) + row * rows.stride;
  r.scales = const_cast<float*>(rows.scales) + row * rows.scales_stride;
  r.sums = const_cast<int32_t*>(rows.sums) + row * rows.sums_stride;
  Int8TableFor(ctx.isa()).quantize_row(r);
}

void QuantizeSomeRows(ExecContext& ctx, int worker, const QuantizePlan& p, const float* x,
                      int64_t ldx, const float* fold, const LinearBackwardOptions& options,
                      int64_t begin, int64_t end, void* memory) {
  auto* q = static_cast<int8_t*>(memory);
  auto* sums = reinterpret_cast<int32_t*>(q + RoundUp(p.m * p.stride, 64));
  auto* scales = reinterpret_cast<float*>(sums + p.m * p.sums_stride);
  const Int8Table& table = Int8TableFor(ctx.isa());
  float* noise = nullptr;
  if (options.stochastic) {
    noise = static_cast<float*>(
        ctx.Scratch(worker, static_cast<size_t>(RoundUp(p.cols, 32)) * sizeof(float)));
  }
  for (int64_t i = begin; i < end; ++i) {
    if (noise != nullptr) {
      FillNoise(table, options.seed, options.substream, options.first_row + i, p.cols, noise);
    }
    QuantizeRow r;
    r.x = x + i * ldx;
    r.fold = fold;
    r.noise = noise;
    r.cols = p.cols;
    r.padded = p.padded;
    r.group = p.group;
    r.q = q + i * p.stride;
    r.scales = scales + i * p.scales_stride;
    r.sums = sums + i * p.sums_stride;
    table.quantize_row(r);
    Correct(p, i, r.sums, memory);
  }
}

QuantizedRows QuantizeRows(ExecContext& ctx, const QuantizePlan& p, const float* x, int64_t ldx,
                           const float* fold, const LinearBackwardOptions& options, void* memory) {
  EachBlock(ctx, p, [&](int64_t begin, int64_t end, int worker) {
    QuantizeSomeRows(ctx, worker, p, x, ldx, fold, options, begin, end, memory);
  });
  return QuantizedRows::At(p, memory);
}

QuantizedRows MakeQuantizedRows(ExecContext& ctx, const QuantizePlan& p, RowMaker make,
                                void* memory) {
  const QuantizedRows rows = QuantizedRows::At(p, memory);
  EachBlock(ctx, p, [&](int64_t begin, int64_t end, int worker) {
    auto* x = static_cast<float*>(
        ctx.Scratch(worker, static_cast<size_t>(RoundUp(p.cols, 16)) * sizeof(float)));
    for (int64_t i = begin; i < end; ++i) {
      make(i, i + 1, x);
      // Every row lies where the one before did.
      QuantizeSomeRows(ctx, worker, p, x, 0, nullptr, {}, i, i + 1, memory);
    }
  });
  return rows;
}

}  // namespace edgewise::kernels
