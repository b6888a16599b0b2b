// One head of a quantised key or value row (kv_quant.h). Part of body.inl.h.
#pragma once

namespace edgewise {
float F16ToF32(uint16_t h);
}

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

EW_INLINE float HalfAt(const uint8_t* p) {
  uint16_t h;
  __builtin_memcpy(&h, p, 2);
  return F16ToF32(h);
}

// Calls step(i, VF) for kLanes elements from i on, then tail(i, float) for the rest. Codes only:
// scale and min are the caller's.
template <typename Step, typename Tail>
EW_INLINE void ForEachCode(int type, int64_t n, const uint8_t* row, Step step, Tail tail) {
  int64_t i = 0;
  if (type == 0) {
    for (; i + kLanes <= n; i += kLanes) step(i, LoadHalf(row + 2 * i));
    for (; i < n; ++i) tail(i, HalfAt(row + 2 * i));
  } else if (type == 1) {
    const auto* c = reinterpret_cast<const int8_t*>(row + 2);
    for (; i + kLanes <= n; i += kLanes) step(i, ToF(LoadInt8(c + i)));
    for (; i < n; ++i) tail(i, static_cast<float>(c[i]));
  } else {
    const uint8_t* c = row + 4;
    const int64_t half = (n + 1) / 2;
    const VI low = SetI(15);
    for (; i + kLanes <= n - half; i += kLanes) {
      const VI bytes = LoadInt8(reinterpret_cast<const int8_t*>(c + i));
      step(i, ToF(AndI(bytes, low)));
      step(i + half, ToF(AndI(ShrI<4>(bytes), low)));
    }
    for (; i < half; ++i) {
      tail(i, static_cast<float>(c[i] & 15));
      if (i + half < n) tail(i + half, static_cast<float>(c[i] >> 4));
    }
  }
}

float KvDot(int type, int64_t n, const uint8_t* row, const float* q, float q_sum) {
  VF acc = SetF(0.0f);
  float rest = 0;
  ForEachCode(
      type, n, row, [&](int64_t i, VF c) EW_LAMBDA_INLINE { acc = FmaF(c, LoadF(q + i), acc); },
      [&](int64_t i, float c) EW_LAMBDA_INLINE { rest += c * q[i]; });
  float lanes[kLanes];
  StoreF(lanes, acc);
  for (int l = 0; l < kLanes; ++l) rest += lanes[l];
  if (type == 0) return rest;
  const float scaled = HalfAt(row) * rest;
  return type == 1 ? scaled : scaled + HalfAt(row + 2) * q_sum;
}

void KvAxpy(int type, int64_t n, const uint8_t* row, float p, float* y) {
  const float scale = type == 0 ? p : p * HalfAt(row);
  const float min = type == 2 ? p * HalfAt(row + 2) : 0.0f;
  const VF vscale = SetF(scale), vmin = SetF(min);
  ForEachCode(
      type, n, row,
      [&](int64_t i, VF c)
          EW_LAMBDA_INLINE { StoreF(y + i, AddF(LoadF(y + i), FmaF(c, vscale, vmin))); },
      [&](int64_t i, float c) EW_LAMBDA_INLINE { y[i] += c * scale + min; });
}

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
