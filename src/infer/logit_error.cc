#include "infer/logit_error.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"

namespace edgewise::infer {
Result<double> LogitError(int64_t vocab, int64_t positions, const LogitsStep& want,
                          const LogitsStep& got) {
  Rng rng(0, RngStream::kCalibration);
  double difference = 0, size = 0;
  for (int64_t i = 0; i < positions; ++i) {
    const auto token = static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(vocab)));
    EW_ASSIGN(const std::span<const float> left, want(token));
    EW_ASSIGN(const std::span<const float> right, got(token));
    for (size_t v = 0; v < static_cast<size_t>(vocab); ++v) {
      if (!std::isfinite(left[v]) || !std::isfinite(right[v])) {
        return BadInput(
            "the written model's logits, or those it is compared with, are not numbers");
      }
      difference = std::max(difference, std::fabs(static_cast<double>(left[v]) - right[v]));
      size = std::max(size, std::fabs(static_cast<double>(left[v])));
    }
  }
  return size > 0 ? difference / size : difference;
}

}  // namespace edgewise::infer
