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

EW_INLINE int32_t ReduceMax128(__m128i v) {
  v = _mm_max_epi32(v, _mm_shuffle_epi32(v, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}

EW_INLINE void Transpose4x4(const uint8_t* in, uint8_t* out) {
  const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(Load128(in), order));
}

// Sums of each 16 of 64 signed bytes.
EW_INLINE void SumsOf16(const int8_t* q, int32_t* sums) {
  const auto halves = [&](int i) EW_LAMBDA_INLINE {
    const __m128i biased = _mm_xor_si128(Load128(q + 16 * i), _mm_set1_epi8(-128));
    return _mm_castsi128_ps(_mm_sad_epu8(biased, _mm_setzero_si128()));
  };
  // Sums of 8 are in every second lane.
  const __m128i low = _mm_castps_si128(_mm_shuffle_ps(halves(0), halves(1), 0x88));
  const __m128i high = _mm_castps_si128(_mm_shuffle_ps(halves(2), halves(3), 0x88));
  const __m128i all = _mm_sub_epi32(_mm_hadd_epi32(low, high), _mm_set1_epi32(16 * 128));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), all);
}
