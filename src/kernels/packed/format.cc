#include "kernels/packed/format.h"

#include <fmt/format.h>

#include "base/checked.h"

namespace edgewise::kernels {
namespace {

bool OneOf(int x, std::initializer_list<int> allowed) {
  for (int a : allowed) {
    if (x == a) return true;
  }
  return false;
}

// Places sections one after the other and remembers whether a size overflowed.
class Placer {
 public:
  explicit Placer(int64_t start) : at_(start) {}
  int64_t Place(std::initializer_list<int64_t> size) {
    const int64_t here = at_;
    const auto bytes = CheckedProduct({size.begin(), size.size()});
    const auto padded = bytes ? CheckedAdd<int64_t>(*bytes, 63) : std::nullopt;
    const auto next = padded ? CheckedAdd<int64_t>(at_, *padded / 64 * 64) : std::nullopt;
    ok_ = ok_ && next;
    if (next) at_ = *next;
    return here;
  }
  bool ok() const { return ok_; }
  int64_t at() const { return at_; }

 private:
  int64_t at_;
  bool ok_ = true;
};

constexpr int64_t kHeaderBytes = 64;
constexpr int64_t kMaxDim = int64_t{1} << 31;

}  // namespace

Status CheckFormat(const PackedFormat& f) {
  if (f.rows < 1 || f.cols < 1 || f.rows > kMaxDim || f.cols > kMaxDim) {
    return BadInput(fmt::format("packed matrix of {} x {}: each side must be 1 to {}", f.rows,
                                f.cols, kMaxDim));
  }
  if (!OneOf(f.bits, {2, 3, 4, 5, 6, 8})) {
    return BadInput(fmt::format("packed matrix of {} bits: use 2, 3, 4, 5, 6 or 8", f.bits));
  }
  if (!OneOf(f.group, {0, 16, 32, 64, 128, 256})) {
    return BadInput(fmt::format("scale group {}: use 0, 16, 32, 64, 128 or 256", f.group));
  }
  if (!OneOf(f.act_group, {0, 32, 64, 128, 256, 512})) {
    return BadInput(
        fmt::format("activation group {}: use 0, 32, 64, 128, 256 or 512", f.act_group));
  }
  if (f.scale_type > ScaleType::kSuper || f.structure > Structure::kBlock) {
    return BadInput("packed matrix with an unknown scale type or structure");
  }
  if (f.scale_type == ScaleType::kSuper && (f.structure != Structure::kDense || f.group == 0)) {
    return BadInput("two-level scales need a dense matrix with groups");
  }
  if (f.has_min && f.structure != Structure::kDense && f.structure != Structure::kBlock) {
    return BadInput("an offset per group would make pruned elements non-zero: dense or block only");
  }
  if (f.has_min && f.bits == 8) return BadInput("8-bit codes have no offset");
  const bool nm = f.structure == Structure::kNM;
  if (nm ? (!OneOf(f.nm_m, {4, 8, 16}) || f.nm_n < 1 || f.nm_n >= f.nm_m)
         : (f.nm_n != 0 || f.nm_m != 0)) {
    return BadInput(fmt::format("N:M sparsity {}:{}: use M in 4, 8, 16 and 0 < N < M (0:0 if none)",
                                f.nm_n, f.nm_m));
  }
  const bool block = f.structure == Structure::kBlock;
  if (block ? (!OneOf(f.block_cols, {32, 64, 128, 256}) || f.group > f.block_cols)
            : f.block_cols != 0) {
    return BadInput(
        fmt::format("blocks of {} columns with groups of {}: use 32, 64, 128 or 256 "
                    "columns, at least one group (0 if there are no blocks)",
                    f.block_cols, f.group));
  }
  if (block && CeilDiv(f.cols, f.block_cols) > 65536) {
    return BadInput("more than 65536 blocks in a row: use wider blocks");
  }
  return Status::Ok();
}

Result<PackedLayout> ComputeLayout(const PackedFormat& f, int64_t count) {
  EW_RETURN_IF_ERROR(CheckFormat(f));
  if (count < 0) return BadInput("packed matrix with a negative count");
  PackedLayout l;
  l.tiles = CeilDiv(f.rows, kTileRows);
  l.units = CeilDiv(f.cols, kUnitCols);
  l.value_units = l.units;
  if (f.structure == Structure::kNM) {
    l.value_units = CeilDiv(CeilDiv(f.cols, f.nm_m) * f.nm_n, kUnitCols);
  }
  const bool per_block = f.structure == Structure::kBlock && f.group > 0;
  l.groups = f.group == 0 ? 1 : per_block ? f.block_cols / f.group : CeilDiv(f.cols, f.group);
  const int64_t scale_owners = per_block ? count : l.tiles;

  Placer placer(kHeaderBytes);
  l.index = placer.at();
  l.aux = l.index;
  if (f.structure == Structure::kUnstructured) {
    placer.Place({l.tiles * PlanesOf(f.bits).count + 1, 4});
    l.aux = placer.Place({l.tiles, l.units, 64});
  } else if (f.structure == Structure::kBlock) {
    placer.Place({l.tiles + 1, 4});
    l.aux = placer.Place({count, 2});
  } else if (f.structure == Structure::kNM) {
    l.aux = placer.Place({l.tiles, l.value_units, 64 * NmIndexBits(f.nm_m)});
  }
  const auto place_factors = [&](int64_t* first, int64_t* subs) {
    if (f.scale_type == ScaleType::kSuper) {
      *first = placer.Place({l.tiles, CeilDiv(f.cols, kSuperGroupCols), kTileRows, 2});
      *subs = placer.Place({l.tiles, l.groups, kTileRows});
    } else {
      const int64_t bytes = f.scale_type == ScaleType::kF16 ? 2 : 4;
      *first = placer.Place({scale_owners, l.groups, kTileRows, bytes});
      *subs = placer.at();
    }
  };
  l.supers = f.scale_type == ScaleType::kSuper ? CeilDiv(f.cols, kSuperGroupCols) : 0;
  place_factors(&l.scales, &l.scale_subs);
  l.mins = l.min_subs = placer.at();
  if (f.has_min) place_factors(&l.mins, &l.min_subs);
  switch (f.structure) {
    case Structure::kDense:
    case Structure::kNM:
      l.values = placer.Place({l.tiles, l.value_units, 64 * int64_t{f.bits}});
      break;
    case Structure::kUnstructured:
      l.values = placer.Place({count, 4});
      break;
    case Structure::kBlock:
      l.values = placer.Place({count, f.block_cols / kUnitCols, 64 * int64_t{f.bits}});
      break;
  }
  placer.Place({kBlobTail});
  if (!placer.ok()) return BadInput("packed matrix whose size overflows 64 bits");
  l.total = placer.at();
  return l;
}

}  // namespace edgewise::kernels
