// Where the rows of a matrix lie among its bytes: what is needed to read some of them.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/packed/format.h"
#include "tensor/dtype.h"

namespace edgewise::model {

// A section of a matrix: `stride` bytes for every `rows` rows.
struct Section {
  int64_t offset = 0, stride = 0;
};

struct MatrixSections {
  int64_t rows = 1;  // that lie together
  std::vector<Section> sections;
};

// Of a dense matrix (packed or not), from the matrix's first byte.
inline MatrixSections SectionsOf(const kernels::PackedFormat& f, const kernels::PackedLayout& l) {
  MatrixSections out;
  out.rows = kernels::kTileRows;
  const auto factors = [&](int64_t first, int64_t subs) {
    if (f.scale_type == kernels::ScaleType::kSuper) {
      out.sections.push_back({first, l.supers * kernels::kTileRows * 2});
      out.sections.push_back({subs, l.groups * kernels::kTileRows});
    } else {
      const int64_t bytes = f.scale_type == kernels::ScaleType::kF16 ? 2 : 4;
      out.sections.push_back({first, l.groups * kernels::kTileRows * bytes});
    }
  };
  factors(l.scales, l.scale_subs);
  if (f.has_min) factors(l.mins, l.min_subs);
  out.sections.push_back({l.values, l.value_units * 64 * f.bits});
  return out;
}

inline MatrixSections SectionsOf(DType dtype, int64_t cols) {
  return {1, {{0, cols * static_cast<int64_t>(DTypeBytes(dtype))}}};
}

}  // namespace edgewise::model
