// Round to nearest of a float matrix, straight into packed form.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "base/checked.h"
#include "kernels/packed/packed_matrix.h"

namespace edgewise::kernels {
namespace {

// keep = the N largest magnitudes of every M columns (the earlier one of equals).
void KeepLargest(const PackedFormat& f, const float* w, int64_t ld, std::vector<uint8_t>* keep) {
  for (int64_t r = 0; r < f.rows; ++r) {
    for (int64_t c0 = 0; c0 < f.cols; c0 += f.nm_m) {
      const int64_t n = std::min<int64_t>(f.nm_m, f.cols - c0);
      int order[16];
      std::iota(order, order + n, 0);
      std::stable_sort(order, order + n, [&](int a, int b) {
        return std::fabs(w[r * ld + c0 + a]) > std::fabs(w[r * ld + c0 + b]);
      });
      for (int64_t i = 0; i < n; ++i) {
        (*keep)[static_cast<size_t>(r * f.cols + c0 + order[i])] = i < f.nm_n;
      }
    }
  }
}

// A block is kept when any of it is non-zero; unstructured: element by element.
void KeepNonZero(const PackedFormat& f, const float* w, int64_t ld, std::vector<uint8_t>* keep) {
  for (int64_t r = 0; r < f.rows; ++r) {
    for (int64_t c = 0; c < f.cols; ++c) {
      (*keep)[static_cast<size_t>(r * f.cols + c)] = w[r * ld + c] != 0;
    }
  }
}

}  // namespace

Result<PackedMatrix> Pack(const PackedFormat& f, const float* w, int64_t ld, const uint8_t* keep) {
  EW_RETURN_IF_ERROR(CheckFormat(f));
  if (f.scale_type == ScaleType::kSuper) {
    return InvalidArgument("two-level scales are packed from given integers only");
  }
  std::vector<uint8_t> own_keep;
  if (keep == nullptr && f.structure != Structure::kDense) {
    own_keep.resize(static_cast<size_t>(f.rows * f.cols));
    if (f.structure == Structure::kNM) {
      KeepLargest(f, w, ld, &own_keep);
    } else {
      KeepNonZero(f, w, ld, &own_keep);
    }
    keep = own_keep.data();
  }
  const int64_t group = f.group == 0 ? f.cols : f.group;
  const int64_t groups = CeilDiv(f.cols, group);
  std::vector<int8_t> q(static_cast<size_t>(f.rows * f.cols));
  std::vector<float> scales(static_cast<size_t>(f.rows * groups));
  std::vector<float> mins(f.has_min ? scales.size() : 0);
  const float high = static_cast<float>(f.has_min ? (1 << f.bits) - 1 : (1 << (f.bits - 1)) - 1);
  for (int64_t r = 0; r < f.rows; ++r) {
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t begin = g * group, end = std::min(f.cols, begin + group);
      float max_abs = 0, lo = 0, hi = 0;
      for (int64_t c = begin; c < end; ++c) {
        if (keep != nullptr && keep[r * f.cols + c] == 0) continue;
        const float x = w[r * ld + c];
        if (!std::isfinite(x)) {
          return BadInput(fmt::format("weight at row {}, column {} is not finite", r, c));
        }
        max_abs = std::max(max_abs, std::fabs(x));
        lo = std::min(lo, x);
        hi = std::max(hi, x);
      }
      const float s = RoundScale(f.scale_type, (f.has_min ? hi - lo : max_abs) / high);
      const float min = f.has_min ? RoundScale(f.scale_type, lo) : 0.0f;
      const auto at = static_cast<size_t>(r * groups + g);
      scales[at] = s;
      if (f.has_min) mins[at] = min;
      const float lowest = f.has_min ? 0.0f : -high;
      for (int64_t c = begin; c < end; ++c) {
        const auto i = static_cast<size_t>(r * f.cols + c);
        if (s == 0.0f || (keep != nullptr && keep[i] == 0)) continue;
        const float code = std::nearbyint((w[r * ld + c] - min) / s);
        q[i] = static_cast<int8_t>(std::clamp(code, lowest, high));
      }
    }
  }
  QuantizedWeights quantized;
  quantized.q = q.data();
  quantized.scales = scales.data();
  quantized.mins = f.has_min ? mins.data() : nullptr;
  quantized.keep = keep;
  return PackFromQuantized(f, quantized);
}

}  // namespace edgewise::kernels
