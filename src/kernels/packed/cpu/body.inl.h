// Bodies of Int8Table, on the vectors of one instruction set. The including file defines
// EW_PACKED_NAMESPACE and has included a vec_*.h with, in an unnamed namespace inside it:
//   VI: 16 / kVecs lanes of int32 (or 4 bytes each), VF: as many floats; kVecs vectors make a tile;
//   kVecBytes, kSignedPanel8, kPanelTiles and the operations used below.
#pragma once

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

constexpr int kLanes = 16 / kVecs;

// ---------------------------------------------------------------- integer product

// Partial sums keep enough independent chains in flight for the latency of a dot product.
template <int T, int R>
constexpr int Chains() {
  constexpr int wide = T * R * kVecs;
  return wide >= 8 ? 1 : wide >= 4 ? 2 : 4;
}

// kKeep: C stays in registers from segment to segment (for short segments, where there are enough
// registers for that).
template <int T, int R, bool kSignedW, bool kGrouped, bool kKeep>
void TileKernel(const TileProduct& p) {
  constexpr int S = Chains<T, R>(), kV = T * kVecs;
  const uint8_t* w = p.w;
  const int64_t w_stride = p.w_stride, a_stride = p.a_stride;
  // Results lie in the level 2 cache: on their way while the sums are made.
  for (int r = 0; r < R; ++r) {
    for (int t = 0; t < kV; ++t) __builtin_prefetch(p.c + r * p.ldc + t * kLanes);
  }
  VF kept[kKeep ? R : 1][kV];
  if constexpr (kKeep) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int t = 0; t < kV; ++t) kept[r][t] = LoadF(p.c + r * p.ldc + t * kLanes);
    }
  }
  for (int64_t g = 0; g < p.segment_count; ++g) {
    const Segment seg = p.segments[g];
    const Run* run = p.runs + seg.first_run;
    int32_t sums[R];
    for (int r = 0; r < R; ++r) sums[r] = 0;
    for (const Run* x = run; x != run + seg.runs; ++x) {
      const auto begin = static_cast<uint32_t>(x->step) / 4;
      const auto end = begin + static_cast<uint32_t>(x->steps) / 4;
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        sums[r] += p.sums[r * p.sums_stride + end] - p.sums[r * p.sums_stride + begin];
        // Mostly one run: vector code for many would cost more than the whole segment.
        __asm__("" : "+r"(sums[r]));
      }
    }
    VI acc[S][R][kV];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const VI start = SetI(-p.zero * sums[r]);
#pragma GCC unroll 16
      for (int t = 0; t < kV; ++t) {
        acc[0][r][t] = start;
#pragma GCC unroll 4
        for (int u = 1; u < S; ++u) acc[u][r][t] = SetI(0);
      }
    }
    // At least one run of at least four steps: without a way around the loops the compiler keeps
    // every sum in one register.
    const Run* const last = run + seg.runs;
    do {
      const int8_t* a = p.a + int64_t{4} * run->step;
      const int8_t* const end = a + int64_t{4} * run->steps;
      do {
#pragma GCC unroll 4
        for (int u = 0; u < S; ++u) {
          VI wv[kV];
#pragma GCC unroll 16
          for (int t = 0; t < kV; ++t) {
            wv[t] = LoadI(w + t / kVecs * w_stride + u * 64 + t % kVecs * kVecBytes);
          }
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) {
            const VI av = BroadcastI(a + r * a_stride + u * 4);
#pragma GCC unroll 16
            for (int t = 0; t < kV; ++t) acc[u][r][t] = Dot<kSignedW>(acc[u][r][t], wv[t], av);
          }
        }
        w += 64 * S;
        a += 4 * S;
      } while (a != end);
    } while (++run != last);
    const float* scales = p.w_scales + int64_t{16} * seg.weight_group;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int t = 0; t < kV; ++t) {
        VI total = acc[0][r][t];
#pragma GCC unroll 4
        for (int u = 1; u < S; ++u) total = AddI(total, acc[u][r][t]);
        float* c = p.c + r * p.ldc + t * kLanes;
        VF scale = LoadF(scales + t / kVecs * p.scale_stride + t % kVecs * kLanes);
        if constexpr (kGrouped) {
          scale = MulF(scale, SetF(p.a_scales[r * p.a_scales_stride + seg.act_group]));
        }
        if constexpr (kKeep) {
          kept[r][t] = FmaF(ToF(total), scale, kept[r][t]);
        } else {
          StoreF(c, FmaF(ToF(total), scale, LoadF(c)));
        }
      }
    }
    if (!kKeep && p.w_mins != nullptr) {
      const float* mins = p.w_mins + int64_t{16} * seg.weight_group;
      for (int r = 0; r < R; ++r) {
        float* c = p.c + r * p.ldc;
        const float a_scale = kGrouped ? p.a_scales[r * p.a_scales_stride + seg.act_group] : 1.0f;
        const VF sum = SetF(static_cast<float>(sums[r]) * a_scale);
        for (int t = 0; t < T * kVecs; ++t) {
          const VF min = LoadF(mins + t / kVecs * p.scale_stride + t % kVecs * kLanes);
          StoreF(c + t * kLanes, FmaF(min, sum, LoadF(c + t * kLanes)));
        }
      }
    }
  }
  if constexpr (kKeep) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
      for (int t = 0; t < kV; ++t) StoreF(p.c + r * p.ldc + t * kLanes, kept[r][t]);
    }
  }
}

template <int T, int R, bool kSignedW, bool kKeep>
void TileKernel(const TileProduct& p) {
  if (p.grouped) return TileKernel<T, R, kSignedW, true, kKeep>(p);
  TileKernel<T, R, kSignedW, false, kKeep>(p);
}

template <int T, bool kSignedW, bool kKeep>
void TileKernelRows(const TileProduct& p) {
  switch (p.rows) {
    case 1:
      return TileKernel<T, 1, kSignedW, kKeep>(p);
    case 2:
      return TileKernel<T, 2, kSignedW, kKeep>(p);
    case 3:
      return TileKernel<T, 3, kSignedW, kKeep>(p);
    case 4:
      return TileKernel<T, 4, kSignedW, kKeep>(p);
    case 5:
      return TileKernel<T, 5, kSignedW, kKeep>(p);
    default:
      return TileKernel<T, 6, kSignedW, kKeep>(p);
  }
}

template <bool kSignedW>
void TileProductAny(const TileProduct& p) {
  TileProduct rest = p;
  const bool keep = p.segment_count > 1 && p.w_mins == nullptr;
  while (rest.tiles > 0) {
    int done = 1;
    if (kKeepTiles > 1 && keep && rest.tiles >= kKeepTiles) {
      done = kKeepTiles;
      TileKernelRows<kKeepTiles == 0 ? 1 : kKeepTiles, kSignedW, kKeepTiles != 0>(rest);
    } else if (kPanelTiles > 1 && rest.tiles >= kPanelTiles) {
      done = kPanelTiles;
      TileKernelRows<kPanelTiles, kSignedW, false>(rest);
    } else if (kKeepTiles > 0 && keep) {
      TileKernelRows<1, kSignedW, kKeepTiles != 0>(rest);
    } else {
      TileKernelRows<1, kSignedW, false>(rest);
    }
    rest.tiles -= done;
    rest.w += done * rest.w_stride;
    rest.w_scales += done * rest.scale_stride;
    if (rest.w_mins != nullptr) rest.w_mins += done * rest.scale_stride;
    rest.c += done * 16;
  }
}

void TileProductFn(const TileProduct& p) {
  if (kSignedPanel8 && p.signed_w) return TileProductAny<kSignedPanel8>(p);
  TileProductAny<false>(p);
}

// ---------------------------------------------------------------- codes

// Step T of a plane W bits wide.
template <int W, int T>
EW_INLINE VI Field(const uint8_t* plane) {
  const VI v = LoadI(plane + T / (8 / W) * 64);
  constexpr int kShift = T % (8 / W) * W;
  if constexpr (W == 8) {
    return v;
  } else if constexpr (kShift + W == 8) {
    return AndI(ShrI<kShift>(v), SetB((1 << W) - 1));
  } else if constexpr (kShift == 0) {
    return AndI(v, SetB((1 << W) - 1));
  } else {
    return AndI(ShrI<kShift>(v), SetB((1 << W) - 1));
  }
}

template <int BITS, int T>
EW_INLINE VI CodeAt(const uint8_t* unit) {
  if constexpr (BITS == 3) {
    return OrI(Field<2, T>(unit), ShlI<2>(Field<1, T>(unit + 128)));
  } else if constexpr (BITS == 5) {
    return OrI(Field<4, T>(unit), ShlI<4>(Field<1, T>(unit + 256)));
  } else if constexpr (BITS == 6) {
    return OrI(Field<4, T>(unit), ShlI<4>(Field<2, T>(unit + 256)));
  } else {
    return Field<BITS, T>(unit);
  }
}

template <int BITS>
void UnpackUnits(const uint8_t* src, int64_t units, int flip, uint8_t* codes) {
  const VI x = SetB(flip);
  for (int64_t u = 0; u < units; ++u, src += 64 * BITS, codes += 512) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const uint8_t* from = src + v * kVecBytes;
      VI c[8] = {CodeAt<BITS, 0>(from), CodeAt<BITS, 1>(from), CodeAt<BITS, 2>(from),
                 CodeAt<BITS, 3>(from), CodeAt<BITS, 4>(from), CodeAt<BITS, 5>(from),
                 CodeAt<BITS, 6>(from), CodeAt<BITS, 7>(from)};
#pragma GCC unroll 8
      for (int t = 0; t < 8; ++t) {
        StoreI(codes + t * 64 + v * kVecBytes, BITS == 8 ? XorI(c[t], x) : c[t]);
      }
    }
  }
}

void UnpackFlip(int bits, const uint8_t* src, int64_t units, int flip, uint8_t* codes) {
  switch (bits) {
    case 2:
      return UnpackUnits<2>(src, units, flip, codes);
    case 3:
      return UnpackUnits<3>(src, units, flip, codes);
    case 4:
      return UnpackUnits<4>(src, units, flip, codes);
    case 5:
      return UnpackUnits<5>(src, units, flip, codes);
    case 6:
      return UnpackUnits<6>(src, units, flip, codes);
    default:
      return UnpackUnits<8>(src, units, flip, codes);
  }
}

void Unpack(int bits, const uint8_t* src, int64_t units, uint8_t* codes) {
  UnpackFlip(bits, src, units, kSignedPanel8 ? 0x80 : 0, codes);
}
void UnpackRaw(int bits, const uint8_t* src, int64_t units, uint8_t* codes) {
  UnpackFlip(bits, src, units, 0, codes);
}

// What turns a stored sparse code (code ^ zero) into a panel byte.
EW_INLINE int SparseFlip(int bits) { return bits == 8 && kSignedPanel8 ? 0 : 1 << (bits - 1); }

// Planes of a code: width of the low and of the high one.
EW_INLINE int LowWidth(int bits) { return bits == 3 ? 2 : bits == 5 || bits == 6 ? 4 : bits; }

template <int BITS>
void ExpandUnits(const uint8_t* masks, const uint8_t* const planes[2], int64_t units,
                 SparseCursor* cursor, uint8_t* codes) {
  constexpr int kLow = BITS == 3 ? 2 : BITS == 5 || BITS == 6 ? 4 : BITS;
  constexpr int kHigh = BITS - kLow;
  constexpr int kLowStreams = 8 / kLow, kHighStreams = kHigh == 0 ? 1 : 8 / kHigh;
  uint64_t low[kLowStreams] = {}, high[kHighStreams] = {};
  for (int s = 0; s < 8; ++s) {
    low[s % kLowStreams] += cursor->kept[s];
    high[s % kHighStreams] += cursor->kept[s];
  }
  const VI flip = SetB(SparseFlip(BITS));
  for (int64_t u = 0; u < units; ++u, masks += 64, codes += 512) {
    // One step: field widths and shifts are constants of the unrolled loop.
    const auto step = [&](auto constant) EW_LAMBDA_INLINE {
      constexpr int T = decltype(constant)::value;
      uint64_t mask;
      __builtin_memcpy(&mask, masks + 8 * T, 8);
      uint64_t& at = low[T % kLowStreams];
      constexpr int kLowShift = T % kLowStreams * kLow;
      ExpandedStep v = ExpandStep<kLowShift, (1 << kLow) - 1, 0>(mask, planes[0] + at);
      const auto n = static_cast<uint32_t>(__builtin_popcountll(mask));
      at += n;
      if constexpr (kHigh != 0) {
        uint64_t& at2 = high[T % kHighStreams];
        constexpr int kHighShift = T % kHighStreams * kHigh;
        v = OrStep(v, ExpandStep<kHighShift, (1 << kHigh) - 1, kLow>(mask, planes[1] + at2));
        at2 += n;
      }
      cursor->kept[T] += n;
      StoreStep(codes + 64 * T, v, flip);
    };
    step(Constant<0>{});
    step(Constant<1>{});
    step(Constant<2>{});
    step(Constant<3>{});
    step(Constant<4>{});
    step(Constant<5>{});
    step(Constant<6>{});
    step(Constant<7>{});
  }
}

void Expand(int bits, const uint8_t* masks, const uint8_t* const planes[2], int64_t units,
            SparseCursor* cursor, uint8_t* codes) {
  switch (bits) {
    case 2:
      return ExpandUnits<2>(masks, planes, units, cursor, codes);
    case 3:
      return ExpandUnits<3>(masks, planes, units, cursor, codes);
    case 4:
      return ExpandUnits<4>(masks, planes, units, cursor, codes);
    case 5:
      return ExpandUnits<5>(masks, planes, units, cursor, codes);
    case 6:
      return ExpandUnits<6>(masks, planes, units, cursor, codes);
    default:
      return ExpandUnits<8>(masks, planes, units, cursor, codes);
  }
}

// M columns of every row at a time: M / 4 steps, each value shifted to the byte it belongs to.
template <int M>
void ExpandNmUnits(int flip, int n, const uint8_t* values, const uint8_t* positions, int64_t units,
                   uint8_t* codes) {
  constexpr int kSteps = M / 4;
  const VI x = SetB(flip);
  const int64_t groups = units * 32 / M;
  for (int v = 0; v < kVecs; ++v) {
    int64_t at = 0;  // compressed column
    for (int64_t g = 0; g < groups; ++g) {
      VI out[kSteps];
      for (int s = 0; s < kSteps; ++s) out[s] = SetI(0);
      for (int i = 0; i < n; ++i, ++at) {
        const int64_t from = at / 4 * 64 + v * kVecBytes;
        const int shift = static_cast<int>(at % 4) * 8;
        const VI value = AndI(ShrVarI(LoadI(values + from), shift), SetI(0xff));
        const VI bit = ShlI<3>(AndI(ShrVarI(LoadI(positions + from), shift), SetI(0xff)));
        for (int s = 0; s < kSteps; ++s) {
          // Lanes whose shift is negative or beyond 31 become zero.
          out[s] = OrI(out[s], ShlLanesI(value, SubI(bit, SetI(32 * s))));
        }
      }
      for (int s = 0; s < kSteps; ++s) {
        StoreI(codes + (g * kSteps + s) * 64 + v * kVecBytes, XorI(out[s], x));
      }
    }
  }
}

void ExpandNm(int bits, int n, int m, const uint8_t* values, const uint8_t* positions,
              int64_t units, uint8_t* codes) {
  const int flip = SparseFlip(bits);
  if (m == 4) return ExpandNmUnits<4>(flip, n, values, positions, units, codes);
  if (m == 8) return ExpandNmUnits<8>(flip, n, values, positions, units, codes);
  ExpandNmUnits<16>(flip, n, values, positions, units, codes);
}

// ---------------------------------------------------------------- backward panels

void Transpose(const uint8_t* unit, uint8_t* out0, uint8_t* out1) {
  for (int t = 0; t < 8; ++t) {
    uint8_t* out = t < 4 ? out0 : out1;
    for (int i = 0; i < 4; ++i) Transpose4x4(unit + t * 64 + i * 16, out + i * 64 + t % 4 * 16);
  }
}

void Requantize(const uint8_t* unit, int code_zero, const float* scale, const float* min,
                uint8_t* out) {
  const VI zero = SetI(code_zero);
  const VI flip = SetB(kSignedPanel8 ? 0 : 0x80);
  for (int v = 0; v < kVecs; ++v) {
    for (int half = 0; half < 2; ++half) {
      const VF s = LoadF(scale + half * 16 + v * kLanes);
      const VF m = min == nullptr ? SetF(0.0f) : LoadF(min + half * 16 + v * kLanes);
      for (int t = half * 4; t < half * 4 + 4; ++t) {
        const VI codes = LoadI(unit + t * 64 + v * kVecBytes);
        const auto byte = [&](VI shifted) EW_LAMBDA_INLINE {
          const VI code = SubI(AndI(shifted, SetI(0xff)), zero);
          return AndI(RoundI(FmaF(ToF(code), s, m)), SetI(0xff));
        };
        const VI packed =
            OrI(OrI(byte(codes), ShlI<8>(byte(ShrI<8>(codes)))),
                OrI(ShlI<16>(byte(ShrI<16>(codes))), ShlI<24>(byte(ShrI<24>(codes)))));
        StoreI(out + t * 64 + v * kVecBytes, XorI(packed, flip));
      }
    }
  }
}

void Dequantize(const uint8_t* half, int code_zero, const float* scale, const float* min,
                float* out, int64_t ld) {
  const VI zero = SetI(code_zero);
  for (int i = 0; i < 4; ++i) {
    for (int v = 0; v < kVecs; ++v) {
      const VI codes = LoadI(half + i * 64 + v * kVecBytes);
      const auto store = [&](int j, VI shifted) EW_LAMBDA_INLINE {
        const int o = 4 * i + j;
        const VI code = SubI(AndI(shifted, SetI(0xff)), zero);
        VF value = MulF(ToF(code), SetF(scale[o]));
        if (min != nullptr) value = AddF(value, SetF(min[o]));
        StoreF(out + o * ld + v * kLanes, value);
      };
      store(0, codes);
      store(1, ShrI<8>(codes));
      store(2, ShrI<16>(codes));
      store(3, ShrI<24>(codes));
    }
  }
}

// ---------------------------------------------------------------- activations

EW_INLINE float FoldedAt(const QuantizeRow& r, int64_t i) {
  return r.fold == nullptr ? r.x[i] : r.x[i] * r.fold[i];
}

template <bool kFold, bool kNoise>
void QuantizeGroup(const QuantizeRow& r, int64_t begin, int64_t end, float* scale_out) {
  // The largest magnitude by its bits: as unsigned integers, NaN > infinity > finite.
  const VI magnitude = SetI(0x7fffffff);
  VI top = SetI(0);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    VF x = LoadF(r.x + i);
    if constexpr (kFold) x = MulF(x, LoadF(r.fold + i));
    top = MaxI(top, AndI(BitsOf(x), magnitude));
  }
  int32_t lanes[kLanes];
  StoreI(lanes, top);
  int32_t max_bits = 0;
  for (int l = 0; l < kLanes; ++l) max_bits = lanes[l] > max_bits ? lanes[l] : max_bits;
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
  for (i = begin; i + kLanes <= end; i += kLanes) {
    VF x = LoadF(r.x + i);
    if constexpr (kFold) x = MulF(x, LoadF(r.fold + i));
    x = MulF(x, vinv);
    if constexpr (kNoise) x = FloorF(AddF(x, LoadF(r.noise + i)));
    StoreAsInt8(r.q + i, ClampI(RoundI(x), -127, 127));
  }
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
  r.sums[0] = 0;
  for (int64_t b = 0; b < r.padded / 64; ++b) {
    int32_t four[4];
    SumsOf16(r.q + b * 64, four);
    for (int j = 0; j < 4; ++j) {
      sum += four[j];
      r.sums[b * 4 + j + 1] = sum;
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

}  // namespace

extern const Int8Table kTable;
const Int8Table kTable = {
    .name = EW_PACKED_NAME,
    .panel_tiles = kPanelTiles,
    .signed8 = kSignedPanel8,
    .tile_product = TileProductFn,
    .unpack = Unpack,
    .expand = Expand,
    .expand_nm = ExpandNm,
    .unpack_raw = UnpackRaw,
    .transpose = Transpose,
    .requantize = Requantize,
    .dequantize = Dequantize,
    .quantize_row = QuantizeRowFn,
    .finish_row = FinishRow,
    .half_to_float = HalfToFloatFn,
};

}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
