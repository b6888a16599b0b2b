// Builds packed blobs.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/checked.h"
#include "kernels/packed/header.h"
#include "kernels/packed/packed_matrix.h"
#include "kernels/packed/unit_code.h"

namespace edgewise::kernels {

float RoundScale(ScaleType type, float scale) {
  return type == ScaleType::kF16 ? F16ToF32(F32ToF16(scale)) : scale;
}

// Fills one blob from given integers.
class PackWriter {
 public:
  PackWriter(const PackedFormat& format, const QuantizedWeights& w)
      : f_(format), w_(w), planes_(PlanesOf(format.bits)) {}

  Result<PackedMatrix> Write() {
    EW_RETURN_IF_ERROR(CheckFormat(f_));
    EW_RETURN_IF_ERROR(CheckArguments());
    EW_ASSIGN(l_, ComputeLayout(f_, 0));  // what does not depend on the count
    EW_RETURN_IF_ERROR(CheckCodes());
    if (f_.structure == Structure::kBlock) FindBlocks();
    if (f_.structure == Structure::kUnstructured) MeasureStreams();
    const int64_t count = index_.empty() ? 0 : index_.back();
    if (count > UINT32_MAX) return Unsupported("packed matrix with too many stored values");
    EW_ASSIGN(l_, ComputeLayout(f_, count));
    auto buffer = std::make_shared<AlignedBuffer>(static_cast<size_t>(l_.total));
    buffer->Zero();
    out_ = buffer->as<uint8_t>();
    WriteHeader(count);
    for (size_t i = 0; i < index_.size(); ++i) {
      Store<uint32_t>(l_.index + 4 * static_cast<int64_t>(i), static_cast<uint32_t>(index_[i]));
    }
    for (size_t i = 0; i < blocks_.size(); ++i) {
      Store<uint16_t>(l_.aux + 2 * static_cast<int64_t>(i), blocks_[i]);
    }
    EW_RETURN_IF_ERROR(
        WriteFactors(w_.scales, w_.super_scales, w_.sub_scales, l_.scales, l_.scale_subs, "scale"));
    if (f_.has_min) {
      EW_RETURN_IF_ERROR(
          WriteFactors(w_.mins, w_.super_mins, w_.sub_mins, l_.mins, l_.min_subs, "min"));
    }
    switch (f_.structure) {
      case Structure::kDense:
        WriteDense();
        break;
      case Structure::kUnstructured:
        WriteUnstructured();
        break;
      case Structure::kNM:
        EW_RETURN_IF_ERROR(WriteNm());
        break;
      case Structure::kBlock:
        WriteBlocks();
        break;
    }
    const std::span bytes(reinterpret_cast<const std::byte*>(out_), static_cast<size_t>(l_.total));
    return PackedMatrix::FromBytes(bytes, buffer, Verify::kHeader);
  }

 private:
  Status CheckArguments() const {
    const bool super = f_.scale_type == ScaleType::kSuper;
    const bool scales =
        super ? w_.super_scales != nullptr && w_.sub_scales != nullptr : w_.scales != nullptr;
    const bool mins = !f_.has_min || (super ? w_.super_mins != nullptr && w_.sub_mins != nullptr
                                            : w_.mins != nullptr);
    if (w_.q == nullptr || !scales || !mins) {
      return InvalidArgument("packing needs codes, scales and, for a format with mins, mins");
    }
    if (f_.has_min && f_.structure == Structure::kDense && w_.keep != nullptr) {
      return InvalidArgument("a dense matrix with an offset per group has no way to say pruned");
    }
    return Status::Ok();
  }

  Status CheckCodes() const {
    const int low = f_.has_min ? 0 : -(1 << (f_.bits - 1));
    const int high = f_.has_min ? (1 << f_.bits) - 1 : -low - 1;
    // Row by row without an early end, so that the compiler may use vectors.
    for (int64_t r = 0; r < f_.rows; ++r) {
      const int8_t* q = w_.q + r * f_.cols;
      int8_t least = 0, most = 0;
      for (int64_t c = 0; c < f_.cols; ++c) {
        least = std::min(least, q[c]);
        most = std::max(most, q[c]);
      }
      if (least >= low && most <= high) continue;
      for (int64_t c = 0; c < f_.cols; ++c) {
        if (q[c] >= low && q[c] <= high) continue;
        return InvalidArgument(
            fmt::format("code {} at row {}, column {} does not fit {} bits", q[c], r, c, f_.bits));
      }
    }
    return Status::Ok();
  }

  bool Kept(int64_t row, int64_t col) const {
    return row < f_.rows && col < f_.cols &&
           (w_.keep == nullptr || w_.keep[row * f_.cols + col] != 0);
  }
  // Unsigned code; zero() outside the matrix and where pruned (blocks keep what they hold).
  int Code(int64_t row, int64_t col) const {
    if (row >= f_.rows || col >= f_.cols) return f_.zero();
    if (f_.structure != Structure::kBlock && !Kept(row, col)) return f_.zero();
    return w_.q[row * f_.cols + col] + f_.zero();
  }
  // Scale index of a column: groups are counted over the dense row.
  int64_t RowGroups() const { return f_.group == 0 ? 1 : CeilDiv(f_.cols, f_.group); }

  template <typename T>
  void Store(int64_t offset, T value) {
    std::memcpy(out_ + offset, &value, sizeof value);
  }

  void WriteHeader(int64_t count) {
    PackedHeader h = {};
    std::memcpy(h.magic, kPackedMagic, sizeof h.magic);
    h.version = kPackedVersion;
    h.bits = static_cast<uint8_t>(f_.bits);
    h.structure = static_cast<uint8_t>(f_.structure);
    h.rows = static_cast<uint64_t>(f_.rows);
    h.cols = static_cast<uint64_t>(f_.cols);
    h.group = static_cast<uint16_t>(f_.group);
    h.act_group = static_cast<uint16_t>(f_.act_group);
    h.scale_type = static_cast<uint8_t>(f_.scale_type);
    h.has_min = f_.has_min ? 1 : 0;
    h.nm_n = static_cast<uint8_t>(f_.nm_n);
    h.nm_m = static_cast<uint8_t>(f_.nm_m);
    h.block_cols = static_cast<uint16_t>(f_.block_cols);
    h.count = static_cast<uint64_t>(count);
    h.total = static_cast<uint64_t>(l_.total);
    Store(0, h);
  }

  Status StoreFloat(int64_t base, int64_t i, float value, const char* what) {
    if (f_.scale_type == ScaleType::kF32) {
      if (!std::isfinite(value)) return InvalidArgument(fmt::format("a {} is not finite", what));
      Store(base + 4 * i, value);
      return Status::Ok();
    }
    const uint16_t half = F32ToF16(value);
    if (!std::isfinite(F16ToF32(half))) {
      return InvalidArgument(
          fmt::format("a {} of {} does not fit fp16: store fp32 scales", what, value));
    }
    Store(base + 2 * i, half);
    return Status::Ok();
  }

  Status WriteFactors(const float* plain, const float* supers, const int8_t* subs, int64_t at,
                      int64_t subs_at, const char* what) {
    const bool per_block = f_.structure == Structure::kBlock && f_.group > 0;
    const int64_t groups = RowGroups();
    for (int64_t t = 0; t < l_.tiles; ++t) {
      for (int64_t r = 0; r < kTileRows && t * kTileRows + r < f_.rows; ++r) {
        const int64_t row = t * kTileRows + r;
        if (f_.scale_type == ScaleType::kSuper) {
          for (int64_t s = 0; s < l_.supers; ++s) {
            EW_RETURN_IF_ERROR(StoreFloat(at, (t * l_.supers + s) * kTileRows + r,
                                          supers[row * l_.supers + s], what));
          }
          for (int64_t g = 0; g < groups; ++g) {
            Store(subs_at + (t * groups + g) * kTileRows + r, subs[row * groups + g]);
          }
        } else if (per_block) {
          for (int64_t i = index_[static_cast<size_t>(t)]; i < index_[static_cast<size_t>(t) + 1];
               ++i) {
            for (int64_t g = 0; g < l_.groups; ++g) {
              const int64_t from = blocks_[static_cast<size_t>(i)] * l_.groups + g;
              if (from >= groups) break;
              EW_RETURN_IF_ERROR(StoreFloat(at, (i * l_.groups + g) * kTileRows + r,
                                            plain[row * groups + from], what));
            }
          }
        } else {
          for (int64_t g = 0; g < groups; ++g) {
            EW_RETURN_IF_ERROR(
                StoreFloat(at, (t * groups + g) * kTileRows + r, plain[row * groups + g], what));
          }
        }
      }
    }
    return Status::Ok();
  }

  // cols is a multiple of kUnitCols.
  void WriteCodes(uint8_t* to, int64_t row0, int64_t col0, int64_t cols) {
    const bool all = w_.keep == nullptr || f_.structure == Structure::kBlock;
    uint8_t codes[kTileRows][kUnitCols];
    for (int64_t c0 = col0; c0 < col0 + cols; c0 += kUnitCols, to += 64 * f_.bits) {
      const bool inside = all && row0 + kTileRows <= f_.rows && c0 + kUnitCols <= f_.cols;
      for (int64_t r = 0; r < kTileRows; ++r) {
        if (inside) {
          const int8_t* q = w_.q + (row0 + r) * f_.cols + c0;
          for (int64_t c = 0; c < kUnitCols; ++c) {
            codes[r][c] = static_cast<uint8_t>(q[c] + f_.zero());
          }
        } else {
          for (int64_t c = 0; c < kUnitCols; ++c) {
            codes[r][c] = static_cast<uint8_t>(Code(row0 + r, c0 + c));
          }
        }
      }
      SetUnit(to, planes_, codes);
    }
  }

  void WriteDense() {
    for (int64_t t = 0; t < l_.tiles; ++t) {
      WriteCodes(out_ + l_.values + t * l_.units * 64 * f_.bits, t * kTileRows, 0,
                 l_.units * kUnitCols);
    }
  }

  void FindBlocks() {
    const int64_t per_row = CeilDiv(f_.cols, f_.block_cols);
    index_.assign(1, 0);
    for (int64_t t = 0; t < l_.tiles; ++t) {
      for (int64_t b = 0; b < per_row; ++b) {
        bool any = false;
        for (int64_t r = 0; r < kTileRows && !any; ++r) {
          for (int64_t c = 0; c < f_.block_cols && !any; ++c) {
            any = Kept(t * kTileRows + r, b * f_.block_cols + c);
          }
        }
        if (any) blocks_.push_back(static_cast<uint16_t>(b));
      }
      index_.push_back(static_cast<int64_t>(blocks_.size()));
    }
  }

  void WriteBlocks() {
    const int64_t bytes = int64_t{f_.block_cols} / kUnitCols * 64 * f_.bits;
    for (int64_t t = 0; t < l_.tiles; ++t) {
      for (int64_t i = index_[static_cast<size_t>(t)]; i < index_[static_cast<size_t>(t) + 1];
           ++i) {
        WriteCodes(out_ + l_.values + i * bytes, t * kTileRows,
                   int64_t{blocks_[static_cast<size_t>(i)]} * f_.block_cols, f_.block_cols);
      }
    }
  }

  uint64_t MaskWord(int64_t tile, int64_t unit, int64_t step) const {
    uint64_t mask = 0;
    for (int i = 0; i < 64; ++i) {
      const int64_t row = tile * kTileRows + i / 4, col = unit * kUnitCols + step * 4 + i % 4;
      if (Kept(row, col)) mask |= uint64_t{1} << i;
    }
    return mask;
  }

  void MeasureStreams() {
    index_.assign(1, 0);
    for (int64_t t = 0; t < l_.tiles; ++t) {
      int64_t kept[8] = {};
      for (int64_t u = 0; u < l_.units; ++u) {
        for (int s = 0; s < 8; ++s) kept[s] += std::popcount(MaskWord(t, u, s));
      }
      for (int p = 0; p < planes_.count; ++p) {
        const int streams = 8 / planes_.width[p];
        int64_t length[8] = {};
        for (int s = 0; s < 8; ++s) length[s % streams] += kept[s];
        index_.push_back(index_.back() + CeilDiv(*std::max_element(length, length + streams), 4));
      }
    }
  }

  void WriteUnstructured() {
    for (int64_t t = 0; t < l_.tiles; ++t) {
      int64_t cursor[2][8] = {};
      for (int64_t u = 0; u < l_.units; ++u) {
        for (int s = 0; s < 8; ++s) {
          const uint64_t mask = MaskWord(t, u, s);
          Store(l_.aux + ((t * l_.units + u) * 8 + s) * 8, mask);
          for (int i = 0; i < 64; ++i) {
            if (((mask >> i) & 1) == 0) continue;
            int code = Code(t * kTileRows + i / 4, u * kUnitCols + s * 4 + i % 4) ^ f_.zero();
            for (int p = 0; p < planes_.count; ++p) {
              const int width = planes_.width[p], stream = s % (8 / width);
              const int64_t plane =
                  l_.values + 4 * index_[static_cast<size_t>(t * planes_.count + p)];
              out_[plane + cursor[p][stream]++] |=
                  static_cast<uint8_t>((code & ((1 << width) - 1)) << (stream * width));
              code >>= width;
            }
          }
        }
      }
    }
  }

  Status WriteNm() {
    const int ib = NmIndexBits(f_.nm_m);
    const Planes index_planes = PlanesOf(ib);
    const int64_t groups = CeilDiv(f_.cols, f_.nm_m);
    for (int64_t t = 0; t < l_.tiles; ++t) {
      uint8_t* values = out_ + l_.values + t * l_.value_units * 64 * f_.bits;
      uint8_t* positions = out_ + l_.aux + t * l_.value_units * 64 * ib;
      for (int64_t r = 0; r < kTileRows; ++r) {
        for (int64_t g = 0; g < groups; ++g) {
          EW_RETURN_IF_ERROR(WriteNmGroup(t * kTileRows + r, g, values, positions, index_planes));
        }
      }
    }
    return Status::Ok();
  }

  Status WriteNmGroup(int64_t row, int64_t group, uint8_t* values, uint8_t* positions,
                      Planes index_planes) {
    const int64_t col0 = group * f_.nm_m;
    int chosen[16];
    int n = 0;
    for (int i = 0; i < f_.nm_m; ++i) {
      if (!Kept(row, col0 + i) || Code(row, col0 + i) == f_.zero()) continue;
      if (n == f_.nm_n) {
        return InvalidArgument(fmt::format("row {} keeps more than {} of the {} columns from {} on",
                                           row, f_.nm_n, f_.nm_m, col0));
      }
      chosen[n++] = i;
    }
    // Groups with fewer non-zeros are filled up with zeros at positions not taken.
    for (int i = 0; n < f_.nm_n; ++i) {
      if (std::find(chosen, chosen + n, i) == chosen + n) chosen[n++] = i;
    }
    std::sort(chosen, chosen + n);
    const int64_t r = row % kTileRows;
    for (int i = 0; i < n; ++i) {
      const int64_t at = group * f_.nm_n + i;
      SetDenseCode(positions, index_planes, NmIndexBits(f_.nm_m), r, at, chosen[i]);
      SetDenseCode(values, planes_, f_.bits, r, at, Code(row, col0 + chosen[i]) ^ f_.zero());
    }
    return Status::Ok();
  }

  const PackedFormat f_;
  const QuantizedWeights w_;
  const Planes planes_;
  PackedLayout l_;
  std::vector<int64_t> index_;
  std::vector<uint16_t> blocks_;
  uint8_t* out_ = nullptr;
};

Result<PackedMatrix> PackFromQuantized(const PackedFormat& format, const QuantizedWeights& w) {
  return PackWriter(format, w).Write();
}

}  // namespace edgewise::kernels
