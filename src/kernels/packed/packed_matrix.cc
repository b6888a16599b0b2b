#include "kernels/packed/packed_matrix.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cassert>

#include "base/checked.h"
#include "kernels/packed/header.h"
#include "kernels/packed/unit_code.h"

namespace edgewise::kernels {

static_assert(std::endian::native == std::endian::little, "blobs are little-endian");

Result<PackedMatrix> PackedMatrix::FromBytes(std::span<const std::byte> bytes,
                                             std::shared_ptr<const void> owner, Verify verify) {
  PackedHeader h;
  if (bytes.size() < sizeof h) {
    return BadInput(
        fmt::format("packed matrix of {} bytes is shorter than its header", bytes.size()));
  }
  std::memcpy(&h, bytes.data(), sizeof h);
  if (std::memcmp(h.magic, kPackedMagic, sizeof kPackedMagic) != 0) {
    return BadInput("not a packed matrix (wrong magic)");
  }
  if (h.version != kPackedVersion) {
    return Unsupported(fmt::format("packed matrix of version {}; this program reads {}", h.version,
                                   kPackedVersion));
  }
  const auto is_zero = [](const uint8_t* p, size_t n) {
    return std::all_of(p, p + n, [](uint8_t b) { return b == 0; });
  };
  if (!is_zero(h.reserved, sizeof h.reserved) || !is_zero(h.reserved2, sizeof h.reserved2) ||
      h.has_min > 1) {
    return BadInput("packed matrix with unknown flags in its header");
  }
  constexpr uint64_t kMax = uint64_t{1} << 62;
  if (h.rows > kMax || h.cols > kMax || h.count > kMax) {
    return BadInput("packed matrix with impossible sizes in its header");
  }
  PackedMatrix m;
  m.format_ = FormatOf(h);
  EW_ASSIGN(m.layout_, ComputeLayout(m.format_, static_cast<int64_t>(h.count)));
  if (h.total != bytes.size() || static_cast<uint64_t>(m.layout_.total) != h.total) {
    return BadInput(
        fmt::format("packed matrix {} x {} needs {} bytes; its header says {}, there "
                    "are {}",
                    h.rows, h.cols, m.layout_.total, h.total, bytes.size()));
  }
  const bool counted =
      m.format_.structure == Structure::kUnstructured || m.format_.structure == Structure::kBlock;
  if (!counted && h.count != 0) return BadInput("packed matrix with a count it has no use for");
  m.bytes_ = bytes;
  m.owner_ = std::move(owner);
  EW_RETURN_IF_ERROR(m.CheckSparse(verify));
  return m;
}

Status PackedMatrix::CheckSparse(Verify verify) const {
  PackedHeader h;
  std::memcpy(&h, bytes_.data(), sizeof h);
  const auto count = static_cast<uint32_t>(h.count);
  const bool unstructured = format_.structure == Structure::kUnstructured;
  if (unstructured || format_.structure == Structure::kBlock) {
    if (h.count > UINT32_MAX) return BadInput("packed matrix with too many stored values");
    const Planes planes = PlanesOf(format_.bits);
    const int64_t entries = layout_.tiles * (unstructured ? planes.count : 1);
    if (index(0) != 0 || index(entries) != count) {
      return BadInput("packed matrix whose index does not cover its values");
    }
    for (int64_t i = 0; i < entries; ++i) {
      if (index(i) > index(i + 1)) return BadInput("packed matrix whose index runs backwards");
    }
  }
  if (format_.structure == Structure::kBlock) {
    const int64_t per_row = CeilDiv(format_.cols, format_.block_cols);
    for (int64_t t = 0; t < layout_.tiles; ++t) {
      int64_t last = -1;
      for (int64_t i = index(t); i < index(t + 1); ++i) {
        if (block(i) <= last || block(i) >= per_row) {
          return BadInput(
              fmt::format("packed matrix whose blocks of rows {}.. are out of order "
                          "or range",
                          t * kTileRows));
        }
        last = block(i);
      }
    }
  }
  if (verify == Verify::kHeader) return Status::Ok();
  if (unstructured) {
    const Planes planes = PlanesOf(format_.bits);
    for (int64_t t = 0; t < layout_.tiles; ++t) {
      int64_t kept[8] = {};
      for (int64_t u = 0; u < layout_.units; ++u) {
        for (int s = 0; s < 8; ++s) kept[s] += std::popcount(mask(t, u, s));
      }
      for (int p = 0; p < planes.count; ++p) {
        const int streams = 8 / planes.width[p];
        int64_t length[8] = {};
        for (int s = 0; s < 8; ++s) length[s % streams] += kept[s];
        const int64_t bytes = *std::max_element(length, length + streams);
        const int64_t i = t * planes.count + p;
        if (CeilDiv(bytes, 4) != int64_t{index(i + 1)} - index(i)) {
          return BadInput(
              fmt::format("packed matrix whose bitmask of rows {}.. does not fit the "
                          "values stored for them",
                          t * kTileRows));
        }
      }
    }
  }
  if (format_.structure == Structure::kNM) {
    // Positions ascend within each group of N; the padding after the last group is not checked.
    const int ib = NmIndexBits(format_.nm_m);
    const Planes planes = PlanesOf(ib);
    const int64_t kept = CeilDiv(format_.cols, format_.nm_m) * format_.nm_n;
    for (int64_t t = 0; t < layout_.tiles; ++t) {
      const uint8_t* tile = section(layout_.aux + t * layout_.value_units * 64 * ib);
      for (int64_t r = 0; r < kTileRows; ++r) {
        int last = -1;
        for (int64_t c = 0; c < kept; ++c) {
          if (c % format_.nm_n == 0) last = -1;
          const int position = DenseCode(tile, planes, ib, r, c);
          if (position <= last) {
            return BadInput(
                fmt::format("packed matrix whose {}:{} positions of row {} do not "
                            "ascend",
                            format_.nm_n, format_.nm_m, t * kTileRows + r));
          }
          last = position;
        }
      }
    }
  }
  return Status::Ok();
}

PackedMatrix PackedMatrix::Rows(int64_t first, int64_t count) const {
  assert(format_.structure == Structure::kDense && first % kTileRows == 0 && count > 0 &&
         first + count <= rows());
  PackedMatrix m = *this;
  const int64_t tile = first / kTileRows;
  m.format_.rows = count;
  m.layout_.tiles = CeilDiv(count, kTileRows);
  const auto advance = [&](int64_t* factors, int64_t* subs) {
    if (format_.scale_type == ScaleType::kSuper) {
      *factors += tile * layout_.supers * kTileRows * 2;
      *subs += tile * layout_.groups * kTileRows;
    } else {
      *factors +=
          tile * layout_.groups * kTileRows * (format_.scale_type == ScaleType::kF16 ? 2 : 4);
    }
  };
  advance(&m.layout_.scales, &m.layout_.scale_subs);
  if (format_.has_min) advance(&m.layout_.mins, &m.layout_.min_subs);
  m.layout_.values += tile * layout_.value_units * 64 * format_.bits;
  return m;
}

void PackedMatrix::LoadFactors(int64_t factors, int64_t subs, int64_t tile, int64_t first,
                               int64_t count, float* out) const {
  if (format_.scale_type == ScaleType::kF32) {
    std::memcpy(out, section(factors + (tile * layout_.groups + first) * kTileRows * 4),
                static_cast<size_t>(count * kTileRows) * sizeof(float));
    return;
  }
  if (format_.scale_type == ScaleType::kF16) {
    const int64_t at = factors + (tile * layout_.groups + first) * kTileRows * 2;
    ConvertToF32(DType::kF16, section(at), out, count * kTileRows);
    return;
  }
  for (int64_t g = 0; g < count; ++g) {
    const int64_t super = (first + g) * format_.group / kSuperGroupCols;
    for (int64_t r = 0; r < kTileRows; ++r) {
      const auto half =
          Load<uint16_t>(factors + ((tile * layout_.supers + super) * kTileRows + r) * 2);
      const auto sub = Load<int8_t>(subs + (tile * layout_.groups + first + g) * kTileRows + r);
      out[g * kTileRows + r] = F16ToF32(half) * static_cast<float>(sub);  // exact: 11 + 8 bits
    }
  }
}

}  // namespace edgewise::kernels
