#include "compress/latency.h"

#include <algorithm>
#include <cmath>

#include "compress/compress_linear.h"
#include "schedule/cost.h"

namespace edgewise::compress {

CostFn DecodeLatency(const plan::Device& device, int64_t group, std::string pattern) {
  return [&device, group, pattern = std::move(pattern)](int64_t rows, int64_t cols,
                                                        const Option& option) {
    plan::Op op;
    op.kind = plan::KernelKind::kLinearForward;
    op.tokens = 1;
    op.out = rows;
    op.in = cols;
    op.bits = option.bits;
    op.sparsity = option.sparsity;
    op.blocks = option.sparsity > 0 && pattern != "unstructured";
    op.gops = 2e-9 * static_cast<double>(rows) * static_cast<double>(cols);
    op.weight_bytes = PackedBytes(rows, cols, option, group, pattern);
    const double reading = static_cast<double>(op.weight_bytes) * 1e-9 / device.memory().read_gbps;
    const double seconds = std::max(schedule::CostOf(device, op).seconds, reading);
    return std::max<int64_t>(1, std::llround(1e9 * seconds));
  };
}

}  // namespace edgewise::compress
