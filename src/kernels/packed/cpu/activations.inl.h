// Rounding of activations, and the end of every product. Part of body.inl.h.
#pragma once

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

alignas(64) const int32_t kCount[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

EW_INLINE float FoldedAt(const QuantizeRow& r, int64_t i) {
  return r.fold == nullptr ? r.x[i] : r.x[i] * r.fold[i];
}

// Columns [i, end) of whole vectors, four at a time while that goes: body(i) for each vector.
template <typename Body>
EW_INLINE int64_t EachVector(int64_t i, int64_t end, Body body) {
  for (; i + 4 * kLanes <= end; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) body(i + u * kLanes, u);
  }
  for (; i + kLanes <= end; i += kLanes) body(i, 0);
  return i;
}

template <bool kFold, bool kNoise>
void QuantizeGroup(const QuantizeRow& row, int64_t begin, int64_t end, float* scale_out) {
  // A copy of our own: no byte that is stored can change what is in it.
  const QuantizeRow r = row;
  const auto load = [&](int64_t i) EW_LAMBDA_INLINE {
    const VF x = LoadF(r.x + i);
    if constexpr (kFold) return MulF(x, LoadF(r.fold + i));
    return x;
  };
  // The largest magnitude by its bits: as unsigned integers, NaN > infinity > finite.
  const VI magnitude = SetI(0x7fffffff);
  VI top[4] = {SetI(0), SetI(0), SetI(0), SetI(0)};
  int64_t i = EachVector(begin, end, [&](int64_t at, int u) EW_LAMBDA_INLINE {
    top[u] = MaxI(top[u], AndI(BitsOf(load(at)), magnitude));
  });
  int32_t max_bits = ReduceMaxI(MaxI(MaxI(top[0], top[1]), MaxI(top[2], top[3])));
  for (; i < end; ++i) {
    const float x = FoldedAt(r, i);
    int32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    bits &= 0x7fffffff;
    max_bits = bits > max_bits ? bits : max_bits;
  }
  float max;
  __builtin_memcpy(&max, &max_bits, 4);
  if (max_bits >= 0x7f800000 || max < 0x1p-100f) {
    *scale_out = max_bits >= 0x7f800000 ? __builtin_nanf("") : 0.0f;
    for (i = begin; i < end; ++i) r.q[i] = 0;
    return;
  }
  *scale_out = max / 127.0f;
  const float inv = 127.0f / max;
  const VF vinv = SetF(inv);
  i = EachVector(begin, end, [&](int64_t at, int) EW_LAMBDA_INLINE {
    VF x = MulF(load(at), vinv);
    if constexpr (kNoise) {
      x = FloorF(AddF(x, LoadF(r.noise + at)));
      StoreAsInt8(r.q + at, ClampI(RoundI(x), -127, 127));
    } else {
      // |x| <= max, and two roundings of 2^-24 do not reach 127.5.
      StoreAsInt8(r.q + at, RoundI(x));
    }
  });
  for (; i < end; ++i) {
    float x = FoldedAt(r, i) * inv;
    if constexpr (kNoise) x = __builtin_floorf(x + r.noise[i]);
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer, ties to even.
    const float rounded = (x + 12582912.0f) - 12582912.0f;
    const int q = static_cast<int>(rounded);
    r.q[i] = static_cast<int8_t>(q > 127 ? 127 : q < -127 ? -127 : q);
  }
}

void QuantizeRowFn(const QuantizeRow& r) {
  const int64_t group = r.group == 0 ? r.cols : r.group;
  float* scale = r.scales;
  for (int64_t begin = 0; begin < r.cols; begin += group, ++scale) {
    const int64_t end = begin + group < r.cols ? begin + group : r.cols;
    if (r.fold == nullptr) {
      if (r.noise == nullptr) {
        QuantizeGroup<false, false>(r, begin, end, scale);
      } else {
        QuantizeGroup<false, true>(r, begin, end, scale);
      }
    } else if (r.noise == nullptr) {
      QuantizeGroup<true, false>(r, begin, end, scale);
    } else {
      QuantizeGroup<true, true>(r, begin, end, scale);
    }
  }
  for (int64_t i = r.cols; i < r.padded; ++i) r.q[i] = 0;
  int32_t sum = 0;
  int32_t* out = r.sums;
  *out++ = 0;
  for (const int8_t *q = r.q, *const end = q + r.padded; q != end; q += 64, out += 4) {
    int32_t four[4];
    SumsOf16(q, four);
    for (int j = 0; j < 4; ++j) out[j] = sum += four[j];
  }
}

void NoiseRow(uint32_t start, uint32_t step, int64_t n, float* noise) {
  // Prospector's "lowbias32" (C. Wellons, 2018) of an arithmetic sequence.
  const VI first = SetI(0x7feb352d), second = SetI(static_cast<int>(0x846ca68bu));
  const VF unit = SetF(0x1p-16f);
  for (int64_t c = 0; c < n; c += 32, start += 16 * step) {
    for (int v = 0; v < kVecs; ++v) {
      VI x = AddI(SetI(static_cast<int>(start + static_cast<uint32_t>(v * kLanes) * step)),
                  MulI(LoadI(kCount), SetI(static_cast<int>(step))));
      x = MulI(XorI(x, ShrI<16>(x)), first);
      x = MulI(XorI(x, ShrI<15>(x)), second);
      x = XorI(x, ShrI<16>(x));
      StoreF(noise + c + v * kLanes, MulF(ToF(AndI(x, SetI(0xffff))), unit));
      StoreF(noise + c + 16 + v * kLanes, MulF(ToF(ShrI<16>(x)), unit));
    }
  }
}

void FinishRow(int64_t n, const float* c, float scale, const float* bias, bool add, float* y) {
  int64_t i = 0;
  const VF s = SetF(scale);
  for (; i + kLanes <= n; i += kLanes) {
    VF v = MulF(LoadF(c + i), s);
    if (bias != nullptr) v = AddF(v, LoadF(bias + i));
    if (add) v = AddF(LoadF(y + i), v);
    StoreF(y + i, v);
  }
  for (; i < n; ++i) {
    float v = c[i] * scale;
    if (bias != nullptr) v = v + bias[i];
    y[i] = add ? y[i] + v : v;
  }
}

void HalfToFloatFn(const uint8_t* halves, int64_t n, float* out) {
  // n is a multiple of 16: scales come in tiles.
  for (int64_t i = 0; i < n; i += kLanes) StoreF(out + i, LoadHalf(halves + 2 * i));
}

void TwoLevel(const uint8_t* halves, const int8_t* bytes, int64_t per_super, int64_t skip,
              int64_t n, float* out) {
  for (int64_t i = 0; i < n; halves += 32, skip = 0) {
    VF factor[kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) factor[v] = LoadHalf(halves + 2 * v * kLanes);
    const int64_t rest = per_super - skip, end = n - i < rest ? n : i + rest;
    for (; i < end; ++i, bytes += 16, out += 16) {
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) {
        const int64_t at = v * kLanes;
        StoreF(out + at, MulF(factor[v], ToF(LoadInt8(bytes + at))));
      }
    }
  }
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
