// What all x86 tables share, on 128-bit pieces. Inside the unnamed namespace.
#include "kernels/packed/cpu/constants.inl.h"

EW_INLINE __m128i Load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// 16 bytes of the expansion: bits of mask16 take the bytes from p on, in order.
EW_INLINE __m128i Expand16(uint32_t mask16, const uint8_t* p) {
  const uint32_t lo = mask16 & 0xff, hi = mask16 >> 8;
  const __m128i first =
      _mm_shuffle_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)),
                       _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kExpand.at[lo])));
  const __m128i second = _mm_shuffle_epi8(
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p + __builtin_popcount(lo))),
      _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kExpand.at[hi])));
  return _mm_unpacklo_epi64(first, second);
}

EW_INLINE void Transpose4x4(const uint8_t* in, uint8_t* out) {
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(Load128(in), order));
}

// Sums of each 16 of 64 signed bytes.
EW_INLINE void SumsOf16(const int8_t* q, int32_t* sums) {
  for (int i = 0; i < 4; ++i) {
    const __m128i biased = _mm_xor_si128(Load128(q + 16 * i), _mm_set1_epi8(-128));
    const __m128i halves = _mm_sad_epu8(biased, _mm_setzero_si128());
    sums[i] = _mm_cvtsi128_si32(halves) + _mm_extract_epi16(halves, 4) - 16 * 128;
  }
}
