// Codes from their packed forms. Part of body.inl.h.
#pragma once

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

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
#ifdef EW_VBMI2
      if constexpr (kHigh == 0) {
        StoreI(codes + 64 * T, ExpandCodes<kLowShift, (1 << kLow) - 1>(mask, planes[0] + at, flip));
        const auto kept = static_cast<uint32_t>(__builtin_popcountll(mask));
        at += kept;
        cursor->kept[T] += kept;
        return;
      }
#endif
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

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
