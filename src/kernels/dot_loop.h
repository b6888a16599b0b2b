// Loops of nothing but integer dot products, one per instruction set that has them (cpu/
// dot_loop_*.cc): what MeasureInt8Peak times.
#pragma once

#include <cstdint>

namespace edgewise::kernels {

// Runs `rounds` and returns how many operations (a multiply-add of int8 counts as two) that was.
using DotLoopFn = int64_t (*)(int64_t rounds);

namespace avxvnni {
int64_t DotLoop(int64_t rounds);
}
namespace avx512vnni {
int64_t DotLoop(int64_t rounds);
}
namespace neondot {
int64_t DotLoop(int64_t rounds);
}
namespace neoni8mm {
int64_t DotLoop(int64_t rounds);
}

}  // namespace edgewise::kernels
