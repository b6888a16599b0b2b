// The specification of the rotary position embedding (arXiv 2104.09864), "rotate half" pairing.
#pragma once

#include <cstdint>

namespace edgewise::kernels::ref {

// Rotates the pairs (x[i], x[i + D/2]) of every head by the angle of the row's position:
// x [rows, heads, D], tables [positions, D/2]. The map is orthogonal, so its vjp is the inverse.
template <typename T>
void Rope(int64_t rows, int64_t heads, int64_t d, T* x, int64_t ldx, const int32_t* positions,
          const T* cos_table, const T* sin_table, bool inverse) {
  const int64_t half = d / 2;
  for (int64_t r = 0; r < rows; ++r) {
    const T* c = cos_table + positions[r] * half;
    const T* s = sin_table + positions[r] * half;
    for (int64_t h = 0; h < heads; ++h) {
      T* v = x + r * ldx + h * d;
      for (int64_t i = 0; i < half; ++i) {
        const T lo = v[i], hi = v[i + half];
        const T sine = inverse ? -s[i] : s[i];
        v[i] = lo * c[i] - hi * sine;
        v[i + half] = hi * c[i] + lo * sine;
      }
    }
  }
}

}  // namespace edgewise::kernels::ref
