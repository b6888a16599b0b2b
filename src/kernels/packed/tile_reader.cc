#include "kernels/packed/tile_reader.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checked.h"

namespace edgewise::kernels {

void TileReader::Read(int64_t tile, int64_t first, int64_t count, SparseCursor* cursor,
                      uint8_t* codes) const {
  const PackedFormat& f = w_.format();
  const PackedLayout& l = w_.layout();
  switch (f.structure) {
    case Structure::kDense:
      return table_.unpack(f.bits, w_.values(tile) + first * 64 * f.bits, count, codes);
    case Structure::kUnstructured: {
      const int planes = PlanesOf(f.bits).count;
      const uint8_t* at[2];
      for (int p = 0; p < 2; ++p) {
        const int64_t i = tile * planes + std::min(p, planes - 1);
        at[p] = w_.section(l.values) + int64_t{4} * w_.index(i);
      }
      const uint8_t* masks = w_.section(l.aux) + (tile * l.units + first) * 64;
      return table_.expand(f.bits, masks, at, count, cursor, codes);
    }
    case Structure::kNM:
      return ReadNm(tile, first, count, codes);
    case Structure::kBlock:
      return;
  }
}

void TileReader::ReadNm(int64_t tile, int64_t first, int64_t count, uint8_t* codes) const {
  const PackedFormat& f = w_.format();
  const PackedLayout& l = w_.layout();
  const int ib = NmIndexBits(f.nm_m);
  // Compressed columns, and the stored units that hold them. With M = 16 a unit holds 2 N of them,
  // hence the even start: a multiple of 4.
  const int64_t begin = first * kUnitCols / f.nm_m * f.nm_n;
  const int64_t end = (first + count) * kUnitCols / f.nm_m * f.nm_n;
  const int64_t u0 = begin / kUnitCols;
  const int64_t wanted = CeilDiv(end, kUnitCols) - u0;
  const int64_t stored = std::clamp<int64_t>(l.value_units - u0, 0, wanted);
  alignas(64) uint8_t values[(kChunkUnits + 1) * kUnitElements];
  alignas(64) uint8_t positions[(kChunkUnits + 1) * kUnitElements];
  table_.unpack_raw(f.bits, w_.values(tile) + u0 * 64 * f.bits, stored, values);
  table_.unpack_raw(ib, w_.section(l.aux) + (tile * l.value_units + u0) * 64 * ib, stored,
                    positions);
  const auto rest = static_cast<size_t>((wanted - stored) * kUnitElements);
  std::memset(values + stored * kUnitElements, 0, rest);
  std::memset(positions + stored * kUnitElements, 0, rest);
  const int64_t skip = (begin - u0 * kUnitCols) / 4 * 64;
  table_.expand_nm(f.bits, f.nm_n, f.nm_m, values + skip, positions + skip, count, codes);
}

void TileReader::Cursors(int64_t tile, SparseCursor* out) const {
  SparseCursor at;
  const int64_t units = w_.layout().units;
  for (int64_t u = 0; u < units; ++u) {
    if (u % 2 == 0) out[u / 2] = at;
    for (int s = 0; s < 8; ++s) {
      at.kept[s] += static_cast<uint32_t>(std::popcount(w_.mask(tile, u, s)));
    }
  }
}

int64_t TileReader::FindBlock(int64_t tile, int64_t unit) const {
  const auto wanted = static_cast<uint16_t>(unit / (w_.format().block_cols / kUnitCols));
  int64_t lo = w_.index(tile), hi = w_.index(tile + 1);
  while (lo < hi) {
    const int64_t mid = (lo + hi) / 2;
    if (w_.block(mid) < wanted) {
      lo = mid + 1;
    } else {
      hi = mid;
    }
  }
  return lo < w_.index(tile + 1) && w_.block(lo) == wanted ? lo : -1;
}

void TileReader::ReadPair(int64_t tile, int64_t first, int64_t count, SparseCursor cursor,
                          uint8_t* codes, int64_t owner[2]) const {
  const PackedFormat& f = w_.format();
  if (f.structure != Structure::kBlock) {
    owner[0] = owner[1] = tile;
    return Read(tile, first, count, &cursor, codes);
  }
  for (int64_t u = 0; u < count; ++u) {
    const int64_t block = FindBlock(tile, first + u);
    owner[u] = block >= 0 && f.group == 0 ? tile : block;
    uint8_t* out = codes + u * kUnitElements;
    if (block < 0) {
      std::memset(out, zero(), kUnitElements);
      continue;
    }
    const int64_t within = (first + u) % (f.block_cols / kUnitCols);
    table_.unpack(f.bits, w_.values(block) + within * 64 * f.bits, 1, out);
  }
}

void TileReader::Prefetch(int64_t owner, int64_t count) const {
  const PackedLayout& l = w_.layout();
  const auto fetch = [&](int64_t section, int64_t first, int64_t n, int64_t bytes) {
    const int64_t begin = section + first * kTileRows * bytes;
    const int64_t end = std::min(begin + n * kTileRows * bytes, l.values);
    for (int64_t at = begin; at < end; at += 64) __builtin_prefetch(w_.section(at));
  };
  const auto factors = [&](int64_t section, int64_t subs) {
    if (w_.format().scale_type != ScaleType::kSuper) {
      return fetch(section, owner * l.groups, count,
                   w_.format().scale_type == ScaleType::kF16 ? 2 : 4);
    }
    fetch(section, owner * l.supers, CeilDiv(count * w_.format().group, kSuperGroupCols), 2);
    fetch(subs, owner * l.groups, count, 1);
  };
  factors(l.scales, l.scale_subs);
  if (w_.format().has_min) factors(l.mins, l.min_subs);
}

void TileReader::Scales(int64_t owner, int64_t first, int64_t count, float* out) const {
  if (w_.format().scale_type == ScaleType::kF32) return w_.LoadScales(owner, first, count, out);
  Factors(w_.layout().scales, w_.layout().scale_subs, owner, first, count, out);
}

void TileReader::Mins(int64_t owner, int64_t first, int64_t count, float* out) const {
  if (w_.format().scale_type == ScaleType::kF32) return w_.LoadMins(owner, first, count, out);
  Factors(w_.layout().mins, w_.layout().min_subs, owner, first, count, out);
}

// Sections `factors` and `subs` as PackedMatrix::LoadFactors reads them.
void TileReader::Factors(int64_t factors, int64_t subs, int64_t owner, int64_t first, int64_t count,
                         float* out) const {
  const PackedLayout& l = w_.layout();
  if (w_.format().scale_type == ScaleType::kF16) {
    const uint8_t* halves = w_.section(factors + (owner * l.groups + first) * kTileRows * 2);
    return table_.half_to_float(halves, count * kTileRows, out);
  }
  const int64_t per_super = kSuperGroupCols / w_.format().group;
  const uint8_t* bytes = w_.section(subs + (owner * l.groups + first) * kTileRows);
  table_.two_level(w_.section(factors + (owner * l.supers + first / per_super) * kTileRows * 2),
                   reinterpret_cast<const int8_t*>(bytes), per_super, first % per_super, count,
                   out);
}

void TileReader::HalfFactors(int64_t owner, int64_t unit, float* scales, float* mins) const {
  const PackedFormat& f = w_.format();
  for (int64_t h = 0; h < 2; ++h) {
    if (h == 1 && f.group != 16) {
      std::memcpy(scales + 16, scales, 64);
      if (f.has_min) std::memcpy(mins + 16, mins, 64);
      continue;
    }
    // A half beyond the matrix takes any group: its columns are not used.
    const int64_t g = GroupOf(std::min(unit * kUnitCols + 16 * h, f.cols - 1));
    Scales(owner, g, 1, scales + 16 * h);
    if (f.has_min) Mins(owner, g, 1, mins + 16 * h);
  }
}

}  // namespace edgewise::kernels
