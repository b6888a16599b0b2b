#include "kernels/packed/random_packed.h"

#include <algorithm>
#include <new>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/checked.h"
#include "base/rng.h"
#include "kernels/packed/header.h"

namespace edgewise::kernels {
namespace {

constexpr int64_t kBandRows = 256;

// What is kept: elements or, with blocks, whole blocks of a tile; the same share in every tile, as
// pruners leave it, so that tiles have equal work.
std::vector<uint8_t> RandomMask(const PackedFormat& f, Rng& rng, double density) {
  std::vector<uint8_t> keep(static_cast<size_t>(f.rows * f.cols), 0);
  if (f.structure == Structure::kUnstructured) {
    for (uint8_t& k : keep) k = rng.NextFloat() < density;
    return keep;
  }
  const int64_t blocks = CeilDiv(f.cols, f.block_cols);
  const auto kept = static_cast<int64_t>(density * static_cast<double>(blocks) + 0.5);
  std::vector<int64_t> order(static_cast<size_t>(blocks));
  for (int64_t row = 0; row < f.rows; row += kTileRows) {
    for (int64_t b = 0; b < blocks; ++b) {
      // Fisher-Yates, from the inside out.
      const auto at = static_cast<int64_t>(rng.NextBelow(static_cast<uint64_t>(b + 1)));
      order[static_cast<size_t>(b)] = order[static_cast<size_t>(at)];
      order[static_cast<size_t>(at)] = b;
    }
    for (int64_t i = 0; i < kept; ++i) {
      const int64_t begin = order[static_cast<size_t>(i)] * f.block_cols;
      const int64_t end = std::min<int64_t>(begin + f.block_cols, f.cols);
      for (int64_t r = row; r < std::min(row + kTileRows, f.rows); ++r) {
        std::fill(keep.begin() + r * f.cols + begin, keep.begin() + r * f.cols + end, 1);
      }
    }
  }
  return keep;
}

// Copies sections of `from`, tile by tile, into the blob of a taller matrix.
class Stacker {
 public:
  Stacker(const PackedMatrix& from, const PackedFormat& to)
      : from_(from), l_(from.layout()), f_(to), indexed_(IsIndexed(to)) {}

  Result<PackedMatrix> Run() {
    int64_t count = 0;
    const int64_t tiles = f_.rows / kTileRows;
    for (int64_t t = 0; t < tiles && indexed_; ++t) count += Count(t % l_.tiles);
    EW_ASSIGN(const PackedLayout to, ComputeLayout(f_, count));
    auto buffer = std::make_shared<AlignedBuffer>(static_cast<size_t>(to.total));
    buffer->Zero();
    out_ = buffer->as<uint8_t>();
    PackedHeader header;
    std::memcpy(&header, from_.section(0), sizeof header);
    header.rows = static_cast<uint64_t>(f_.rows);
    header.count = static_cast<uint64_t>(count);
    header.total = static_cast<uint64_t>(to.total);
    std::memcpy(out_, &header, sizeof header);

    const int planes = f_.structure == Structure::kUnstructured ? PlanesOf(f_.bits).count : 1;
    const int64_t value_bytes = f_.structure == Structure::kUnstructured ? 4
                                : f_.structure == Structure::kBlock
                                    ? int64_t{f_.block_cols} / kUnitCols * 64 * f_.bits
                                    : l_.value_units * 64 * f_.bits;
    const int64_t aux_bytes = f_.structure == Structure::kUnstructured ? l_.units * 64
                              : f_.structure == Structure::kBlock      ? 2
                              : f_.structure == Structure::kNM
                                  ? l_.value_units * 64 * NmIndexBits(f_.nm_m)
                                  : 0;
    const bool per_block = f_.structure == Structure::kBlock && f_.group > 0;
    const int64_t factor_bytes = l_.groups * kTileRows * (f_.scale_type == ScaleType::kF16 ? 2 : 4);
    int64_t at = 0;  // stored blocks or words of values so far
    for (int64_t t = 0; t < tiles; ++t) {
      const int64_t s = t % l_.tiles;
      const int64_t first = indexed_ ? from_.index(s * planes) : s;
      const int64_t n = indexed_ ? Count(s) : 1, place = indexed_ ? at : t;
      for (int p = 0; p < planes && indexed_; ++p) {
        PutIndex(to, t * planes + p, at + from_.index(s * planes + p) - first);
      }
      Copy(l_.values + first * value_bytes, to.values + place * value_bytes, n * value_bytes);
      const bool aux_by_block = f_.structure == Structure::kBlock;
      Copy(l_.aux + (aux_by_block ? first : s) * aux_bytes,
           to.aux + (aux_by_block ? place : t) * aux_bytes, (aux_by_block ? n : 1) * aux_bytes);
      const int64_t owner = per_block ? first : s, target = per_block ? place : t;
      const int64_t bytes = factor_bytes * (per_block ? n : 1);
      Copy(l_.scales + owner * factor_bytes, to.scales + target * factor_bytes, bytes);
      if (f_.has_min) {
        Copy(l_.mins + owner * factor_bytes, to.mins + target * factor_bytes, bytes);
      }
      at += indexed_ ? n : 0;
    }
    if (indexed_) PutIndex(to, tiles * planes, at);
    const std::span bytes(reinterpret_cast<const std::byte*>(out_), static_cast<size_t>(to.total));
    return PackedMatrix::FromBytes(bytes, buffer, Verify::kHeader);
  }

 private:
  static bool IsIndexed(const PackedFormat& f) {
    return f.structure == Structure::kUnstructured || f.structure == Structure::kBlock;
  }
  int64_t Count(int64_t tile) const {
    const int planes = f_.structure == Structure::kUnstructured ? PlanesOf(f_.bits).count : 1;
    return int64_t{from_.index((tile + 1) * planes)} - from_.index(tile * planes);
  }
  void Copy(int64_t from, int64_t to, int64_t bytes) {
    std::memcpy(out_ + to, from_.section(from), static_cast<size_t>(bytes));
  }
  void PutIndex(const PackedLayout& to, int64_t i, int64_t value) {
    const auto v = static_cast<uint32_t>(value);
    std::memcpy(out_ + to.index + 4 * i, &v, 4);
  }

  const PackedMatrix& from_;
  const PackedLayout& l_;
  const PackedFormat& f_;
  const bool indexed_;
  uint8_t* out_ = nullptr;
};

}  // namespace

Result<PackedMatrix> RandomPackedMatrix(const PackedFormat& format, uint64_t seed, double density,
                                        float sigma) {
  EW_RETURN_IF_ERROR(CheckFormat(format));
  if (format.rows % kTileRows != 0 || format.scale_type == ScaleType::kSuper) {
    return InvalidArgument(
        "random packed matrices have a multiple of 16 rows and scales of one level");
  }
  try {
    PackedFormat band = format;
    band.rows = std::min(format.rows, kBandRows);
    Rng rng(seed, RngStream::kInit);
    std::vector<float> w(static_cast<size_t>(band.rows * band.cols));
    for (float& x : w) x = sigma * static_cast<float>(rng.NextNormal());
    std::vector<uint8_t> keep;
    if (format.structure == Structure::kUnstructured || format.structure == Structure::kBlock) {
      keep = RandomMask(band, rng, density);
    }
    EW_ASSIGN(const PackedMatrix packed,
              Pack(band, w.data(), band.cols, keep.empty() ? nullptr : keep.data()));
    return Stacker(packed, format).Run();
  } catch (const std::bad_alloc&) {
    return OutOfMemory("there is no memory for a random packed matrix");
  }
}

}  // namespace edgewise::kernels
