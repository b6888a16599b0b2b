// Panels for the backward pass. Part of body.inl.h.
#pragma once

namespace edgewise::kernels::EW_PACKED_NAMESPACE {
namespace {

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

}  // namespace
}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
