// What a linear costs in time on a device, for policies whose limit is a time instead of a size.
#pragma once

#include "compress/derive.h"
#include "plan/device.h"

namespace edgewise::compress {

// Nanoseconds of the product of one token's activations (decode) with a packed linear [rows, cols]:
// as slow as the kernel's measured rate or as reading its bytes from memory, whichever is slower.
// Never 0, so that sums over linears keep their order. `device` must outlive the function.
CostFn DecodeLatency(const plan::Device& device, int64_t group, std::string pattern);

}  // namespace edgewise::compress
