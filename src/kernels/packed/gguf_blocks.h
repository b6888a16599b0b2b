// Quantised blocks of GGUF files as packed matrices with exactly the same values: "run as they
// are".
#pragma once

#include <cstddef>
#include <span>

#include "kernels/packed/packed_matrix.h"

namespace edgewise::kernels {

// Numbers are ggml's type ids.
enum class GgufBlock : uint32_t {
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
};

bool IsPackableGguf(uint32_t ggml_type);

// `bytes`: rows * cols / block elements blocks, rows one after the other. Row r of the result is
// row `row_order[r]` of the file (null: r), for weights whose rows a file permutes. Activations are
// rounded per token and 32 columns, as llama.cpp does.
// Error: sizes that do not fit, a scale that is not finite.
Result<PackedMatrix> PackGguf(GgufBlock type, std::span<const std::byte> bytes, int64_t rows,
                              int64_t cols, const int64_t* row_order = nullptr);

}  // namespace edgewise::kernels
