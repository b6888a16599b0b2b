// Symmetric integer grids: value = code * scale.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace edgewise::compress {

enum class GridKind {
  kSym,   // codes -(2^(b-1)-1) .. 2^(b-1)-1, scale = max|x| / (2^(b-1)-1)
  kWide,  // codes -2^(b-1) .. 2^(b-1)-1, scale = 2 max|x| / (2^b-1): the grid of the GPTQ release
};

struct Grid {
  int bits = 4;  // 2..8
  GridKind kind = GridKind::kSym;

  int high() const { return (1 << (bits - 1)) - 1; }
  int low() const { return kind == GridKind::kSym ? -high() : -high() - 1; }

  // Scale for values whose largest magnitude is `max_abs`; an all-zero group counts as max 1.
  template <typename T>
  T ScaleFor(T max_abs) const {
    const T m = max_abs == T(0) ? T(1) : max_abs;
    return kind == GridKind::kSym ? m / T(high()) : T(2) * m / T((1 << bits) - 1);
  }

  // Nearest code, ties to even.
  template <typename T>
  int8_t Code(T x, T scale) const {
    const T r = std::nearbyint(x / scale);
    return static_cast<int8_t>(std::clamp(r, T(low()), T(high())));
  }
};

}  // namespace edgewise::compress
