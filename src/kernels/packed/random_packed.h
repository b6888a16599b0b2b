// Packed matrices with random weights, for benchmarks: made packed, a band of rows at a time.
#pragma once

#include <cstdint>

#include "kernels/packed/packed_matrix.h"

namespace edgewise::kernels {

// Normal weights of standard deviation `sigma`, rounded to the format; a pure function of the
// arguments. kUnstructured and kBlock keep `density` of the elements or blocks (kNM: N of M). The
// first 256 rows are drawn, the rest repeats them: speed and size are those of any other matrix.
// Error: a bad format, rows that are no multiple of 16, no memory.
Result<PackedMatrix> RandomPackedMatrix(const PackedFormat& format, uint64_t seed, double density,
                                        float sigma = 0.02f);

}  // namespace edgewise::kernels
