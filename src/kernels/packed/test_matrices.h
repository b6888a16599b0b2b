// Random packed matrices of every form, for tests and benchmarks.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "base/checked.h"
#include "base/rng.h"
#include "kernels/packed/packed_matrix.h"

namespace edgewise::kernels {

struct RandomPacked {
  std::vector<int8_t> q;
  std::vector<float> scales, mins;
  std::vector<uint8_t> keep;
  std::vector<float> super_scales, super_mins;
  std::vector<int8_t> sub_scales, sub_mins;
  QuantizedWeights View(const PackedFormat& f) const {
    QuantizedWeights w;
    w.q = q.data();
    w.scales = scales.data();
    w.mins = f.has_min ? mins.data() : nullptr;
    w.keep = keep.empty() ? nullptr : keep.data();
    w.super_scales = super_scales.data();
    w.super_mins = super_mins.data();
    w.sub_scales = sub_scales.data();
    w.sub_mins = sub_mins.data();
    return w;
  }
};

// Random codes over the whole range; `density` of the elements (or blocks) kept where sparse.
inline RandomPacked MakeRandomPacked(const PackedFormat& f, Rng& rng, double density = 0.5) {
  RandomPacked w;
  const int64_t n = f.rows * f.cols;
  const int64_t groups = f.group == 0 ? 1 : CeilDiv(f.cols, f.group);
  const int64_t supers = CeilDiv(f.cols, kSuperGroupCols);
  w.q.resize(static_cast<size_t>(n));
  for (int8_t& q : w.q) {
    q = static_cast<int8_t>(static_cast<int64_t>(rng.NextBelow(uint64_t{1} << f.bits)) - f.zero());
  }
  w.scales.resize(static_cast<size_t>(f.rows * groups));
  w.mins.resize(w.scales.size());
  for (float& s : w.scales) s = RoundScale(f.scale_type, 0.001f + 0.02f * rng.NextFloat());
  for (float& m : w.mins) m = RoundScale(f.scale_type, -0.1f * rng.NextFloat());
  w.super_scales.resize(static_cast<size_t>(f.rows * supers));
  w.super_mins.resize(w.super_scales.size());
  for (float& s : w.super_scales) s = RoundScale(ScaleType::kF16, 0.001f * rng.NextFloat());
  for (float& s : w.super_mins) s = RoundScale(ScaleType::kF16, -0.001f * rng.NextFloat());
  w.sub_scales.resize(w.scales.size());
  w.sub_mins.resize(w.scales.size());
  for (int8_t& s : w.sub_scales) s = static_cast<int8_t>(rng.NextBelow(256));
  for (int8_t& s : w.sub_mins) s = static_cast<int8_t>(rng.NextBelow(64));
  if (f.structure == Structure::kDense) return w;
  w.keep.assign(static_cast<size_t>(n), 0);
  for (int64_t r = 0; r < f.rows; ++r) {
    for (int64_t c = 0; c < f.cols; ++c) {
      const auto i = static_cast<size_t>(r * f.cols + c);
      if (f.structure == Structure::kUnstructured) {
        w.keep[i] = rng.NextDouble() < density;
      } else if (f.structure == Structure::kNM) {
        // Reservoir over each run of M: exactly N kept where the run is whole.
        const int64_t seen = c % f.nm_m;
        int64_t taken = 0;
        for (int64_t k = c - seen; k < c; ++k) taken += w.keep[static_cast<size_t>(r * f.cols + k)];
        w.keep[i] = static_cast<int64_t>(rng.NextBelow(static_cast<uint64_t>(f.nm_m - seen))) <
                    f.nm_n - taken;
      } else if (r % kTileRows == 0 && c % f.block_cols == 0) {
        w.keep[i] = rng.NextDouble() < density;
      } else {
        w.keep[i] =
            w.keep[static_cast<size_t>((r - r % kTileRows) * f.cols + c - c % f.block_cols)];
      }
    }
  }
  for (size_t i = 0; i < w.q.size(); ++i) {
    if (w.keep[i] == 0) w.q[i] = 0;
  }
  return w;
}

// What the packed matrix must unpack to.
inline float ExpectedValue(const PackedFormat& f, const RandomPacked& w, int64_t r, int64_t c) {
  const auto i = static_cast<size_t>(r * f.cols + c);
  if (!w.keep.empty() && w.keep[i] == 0) return 0;
  const int64_t groups = f.group == 0 ? 1 : CeilDiv(f.cols, f.group);
  const auto g = static_cast<size_t>(r * groups + (f.group == 0 ? 0 : c / f.group));
  const auto s = static_cast<size_t>(r * CeilDiv(f.cols, kSuperGroupCols) + c / kSuperGroupCols);
  const bool super = f.scale_type == ScaleType::kSuper;
  const float scale = super ? w.super_scales[s] * w.sub_scales[g] : w.scales[g];
  const float min = !f.has_min ? 0.0f : super ? w.super_mins[s] * w.sub_mins[g] : w.mins[g];
  return scale * static_cast<float>(w.q[i]) + min;
}

// Every bit width with a sample of groups, scale types and structures.
inline std::vector<PackedFormat> TestFormats(int64_t rows, int64_t cols) {
  std::vector<PackedFormat> formats;
  const auto add = [&](int bits, int group, auto&& change) {
    PackedFormat f;
    f.rows = rows;
    f.cols = cols;
    f.bits = bits;
    f.group = group;
    change(f);
    formats.push_back(f);
  };
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    add(bits, 0, [](PackedFormat& f) { f.act_group = 0; });
    add(bits, 128, [](PackedFormat& f) {
      f.scale_type = ScaleType::kF32;
      f.act_group = 128;
    });
    add(bits, 32, [](PackedFormat& f) { f.act_group = 32; });
    add(bits, 16, [&](PackedFormat& f) { f.scale_type = ScaleType::kSuper; });
    if (bits != 8) {
      add(bits, 32, [](PackedFormat& f) {
        f.scale_type = ScaleType::kSuper;
        f.has_min = true;
      });
      add(bits, 32, [](PackedFormat& f) {
        f.has_min = true;
        f.act_group = 0;
      });
    }
    add(bits, 64, [](PackedFormat& f) {
      f.structure = Structure::kUnstructured;
      f.act_group = 128;
    });
    add(bits, 0, [](PackedFormat& f) {
      f.structure = Structure::kUnstructured;
      f.act_group = 64;
    });
    add(bits, 64, [](PackedFormat& f) {
      f.structure = Structure::kBlock;
      f.block_cols = 64;
      f.act_group = 256;
    });
    add(bits, 32, [](PackedFormat& f) {
      f.structure = Structure::kBlock;
      f.block_cols = 32;
    });
    add(bits, 0, [](PackedFormat& f) {
      f.structure = Structure::kBlock;
      f.block_cols = 32;
      f.act_group = 0;
    });
  }
  for (const auto& [n, m] :
       {std::pair{2, 4}, {1, 4}, {3, 4}, {4, 8}, {1, 8}, {3, 8}, {2, 16}, {7, 16}}) {
    for (int bits : {3, 4, 8}) {
      add(bits, m == 4 ? 64 : 0, [&, n = n, m = m](PackedFormat& f) {
        f.structure = Structure::kNM;
        f.nm_n = n;
        f.nm_m = m;
      });
    }
  }
  add(4, 32, [](PackedFormat& f) {
    f.structure = Structure::kBlock;
    f.block_cols = 128;
    f.has_min = true;
  });
  return formats;
}

inline std::string Describe(const PackedFormat& f) {
  return std::to_string(f.rows) + "x" + std::to_string(f.cols) + " bits " + std::to_string(f.bits) +
         " structure " + std::to_string(static_cast<int>(f.structure)) + " group " +
         std::to_string(f.group) + " scales " + std::to_string(static_cast<int>(f.scale_type)) +
         " min " + std::to_string(f.has_min) + " nm " + std::to_string(f.nm_n) + ":" +
         std::to_string(f.nm_m) + " block " + std::to_string(f.block_cols) + " act " +
         std::to_string(f.act_group);
}

}  // namespace edgewise::kernels
