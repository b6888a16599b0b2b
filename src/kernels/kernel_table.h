// The functions that exist once per instruction set, as plain pointers. Bodies are written once
// (cpu/*.inl.h) and compiled for each set in a translation unit of its own (cpu/table_*.cc).
#pragma once

#include <cstdint>

#include "exec/cpu.h"
#include "tensor/dtype.h"

namespace edgewise::kernels {

// How the left matrix of a product lies in memory.
enum class ALayout : uint8_t {
  kRowMajor,  // element (i, p) at data[i * stride + p]
  kKMajor,    // element (i, p) at data[p * stride + i]
  kPanels,    // pack_a's: panel i / mr at (i / mr) * stride, element (i % mr, p) at p * mr + i % mr
};

// The right matrix of a product [k, n] in panels of nr columns: panel j / nr at
// data + (j / nr) * panel_stride, element (p, j % nr) at p * k_stride + j % nr. Columns beyond n in
// the last panel are read (whatever they hold) and not used.
struct BPanels {
  const float* data = nullptr;
  int64_t panel_stride = 0;
  int64_t k_stride = 0;
};

struct KernelTable {
  const char* name;
  int lanes;  // floats in a vector
  int mr;     // rows of a register tile
  int nr;     // columns of a register tile

  // --- Matrix product (cpu/gemm.inl.h). One thread.

  // Panels of nr columns, k_stride nr, panel_stride nr * k, from rows of B^T: src [n, k] in F32,
  // F16 or BF16 with row stride ld. Missing columns of the last panel are zeros.
  void (*pack_b_transposed)(DType dtype, const void* src, int64_t ld, int64_t n, int64_t k,
                            float* out);
  // The same from rows of B: src [k, n].
  void (*pack_b)(DType dtype, const void* src, int64_t ld, int64_t n, int64_t k, float* out);
  // kPanels with stride mr * k from A [m, k] (layout kRowMajor or kKMajor).
  void (*pack_a)(ALayout layout, const float* src, int64_t ld, int64_t m, int64_t k, float* out);
  // C[m,n] = (add ? C : 0) + alpha A B. Each element is one chain of multiply-adds over p = 0 ..
  // k-1 from zero, then one multiply-add with alpha; it does not depend on m, n or the layouts.
  void (*multiply)(int64_t m, int64_t n, int64_t k, ALayout a_layout, const float* a,
                   int64_t a_stride, const BPanels& b, float alpha, float* c, int64_t ldc,
                   bool add);
  // C[m,n] = (add ? C : 0) + alpha A[m,k] B[n,k]^T for small n (<= 16): vectors run along k, which
  // spares packing A. Another order of addition than multiply's.
  void (*multiply_thin)(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
                        const float* b, int64_t ldb, float alpha, float* c, int64_t ldc, bool add);
};

// The table that serves `isa` (those with integer dot products share the fp32 code of the set they
// extend).
const KernelTable& TableFor(Isa isa);

namespace generic {
extern const KernelTable kTable;
}
namespace avx2 {
extern const KernelTable kTable;
}
namespace avx512 {
extern const KernelTable kTable;
}
namespace neon {
extern const KernelTable kTable;
}

}  // namespace edgewise::kernels
