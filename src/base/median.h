// The median, for measurements that something else may have disturbed.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace edgewise {

// Of an even number of values the mean of the two in the middle; of none 0.
inline double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  if (values.size() % 2 == 1) return *middle;
  return 0.5 * (*std::max_element(values.begin(), middle) + *middle);
}

}  // namespace edgewise
