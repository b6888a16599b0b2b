// How products of many rows are cut along the rows. Internal.
#pragma once

#include <algorithm>

#include "base/checked.h"
#include "kernels/packed/int8_table.h"

namespace edgewise::kernels {

// Rows of one task: its fp32 results stay in the level 2 cache. Tasks begin where groups of
// kMaxProductRows do: tables of corrections are laid out by them.
inline constexpr int64_t kMaxTaskRows = 86 * kMaxProductRows;

// Rows of each task of a product of `panels` panels. Few panels are cut, so that threads end
// together; not so short that unpacking a panel for each task would tell.
inline int64_t TaskRows(int64_t m, int64_t panels) {
  constexpr int64_t kEnoughTasks = 24;
  constexpr int64_t kShortRows = 28 * kMaxProductRows;
  const int64_t cuts = std::min(CeilDiv(kEnoughTasks, panels), CeilDiv(m, kShortRows));
  return std::min({m, kMaxTaskRows, RoundUp(CeilDiv(m, cuts), int64_t{kMaxProductRows})});
}

}  // namespace edgewise::kernels
