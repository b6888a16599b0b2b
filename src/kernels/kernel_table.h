// The functions that exist once per instruction set, as plain pointers. Bodies are written once
// (cpu/*.inl.h) and compiled for each set in a translation unit of its own (cpu/table_*.cc).
#pragma once

#include <cstdint>

#include "exec/cpu.h"
#include "kernels/attention.h"
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
  // Per panel, bit s: steps [16 s, 16 s + 16) are there. Others are zeros that are neither read nor
  // multiplied. Null: all are there. Products of at most 256 steps.
  const uint16_t* steps = nullptr;
};
inline constexpr int64_t kBStepRun = 16;

// Keys of one attention tile.
inline constexpr int64_t kAttentionKeys = 64;

// The operands of AttentionForward and AttentionBackward.
struct AttentionArgs {
  AttentionShape shape;
  AttentionMask mask;
  int64_t q_len = 0;
  const float* q = nullptr;
  int64_t ldq = 0;
  const float *k = nullptr, *v = nullptr;
  int64_t ldkv = 0;
  float* out = nullptr;
  int64_t ldo = 0;
  float* lse = nullptr;
};
struct AttentionGradArgs {
  AttentionShape shape;
  AttentionMask mask;
  int64_t len = 0;
  const float* q = nullptr;
  int64_t ldq = 0;
  const float *k = nullptr, *v = nullptr;
  int64_t ldkv = 0;
  const float *out = nullptr, *dout = nullptr;
  int64_t ldo = 0;
  const float* lse = nullptr;
  float* dq = nullptr;
  int64_t lddq = 0;
};

// What the head loss knows of one row after some blocks of the vocabulary.
struct LogitsRow {
  double sum = 0;  // of exp(logit - max)
  float max = 0;   // start with minus infinity
  float target_logit = 0;
  float lse = 0;  // log-sum-exp, once all blocks are seen
  int32_t best = -1;
};

// AdamW with everything that depends on the step alone worked out.
struct AdamWConstants {
  float grad_scale, beta1, one_minus_beta1, beta2, one_minus_beta2;
  float decay;                 // 1 - lr weight_decay
  float step_size;             // lr / (1 - beta1^step)
  float inv_sqrt_correction2;  // (1 - beta2^step)^-1/2
  float eps;
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
  // Absent steps of B (BPanels::steps) are left out of the chain, which is the same bits as zeros
  // there if A is finite and no product underflows (then the sign of a zero may differ).
  void (*multiply)(int64_t m, int64_t n, int64_t k, ALayout a_layout, const float* a,
                   int64_t a_stride, const BPanels& b, float alpha, float* c, int64_t ldc,
                   bool add);
  // C[m,n] = (add ? C : 0) + alpha A[m,k] B[n,k]^T for small n (<= 16): vectors run along k, which
  // spares packing A. Another order of addition than multiply's.
  void (*multiply_thin)(int64_t m, int64_t n, int64_t k, const float* a, int64_t lda,
                        const float* b, int64_t ldb, float alpha, float* c, int64_t ldc, bool add);

  // Nothing but multiply-adds in registers; returns how many operations `rounds` were.
  int64_t (*fma_loop)(int64_t rounds);

  // --- Attention (cpu/attention.inl.h). Scratch sizes in floats.

  int64_t (*attention_forward_scratch)(int64_t rows, int64_t head_dim);
  // Queries [q_begin, q_end) of heads [head_begin, head_end), which share a key-value head.
  // rows = heads * queries.
  void (*attention_forward)(const AttentionArgs& args, int64_t head_begin, int64_t head_end,
                            int64_t q_begin, int64_t q_end, float* scratch);
  int64_t (*attention_backward_scratch)(int64_t len, int64_t head_dim);
  // Query head `head`: writes its dq, and its share of dk and dv [len, head_dim].
  void (*attention_backward)(const AttentionGradArgs& args, int64_t head, float* dk, float* dv,
                             int64_t lddkv, float* scratch);

  // --- Rows and elements (cpu/elementwise.inl.h); as in elementwise.h and adamw.h, one thread.

  void (*rms_norm)(int64_t rows, int64_t n, float eps, bool plus_one, const float* x,
                   const float* weight, float* y, float* rstd);
  void (*rms_norm_vjp)(int64_t rows, int64_t n, bool plus_one, const float* x, const float* weight,
                       const float* rstd, const float* dy, float* dx, bool add);
  // dweight[n] += sum over rows of dy x rstd, for n columns of rows that are ld apart.
  void (*rms_norm_weight_vjp)(int64_t rows, int64_t n, int64_t ld, const float* x,
                              const float* rstd, const float* dy, float* dweight);
  void (*rope)(int64_t rows, int64_t heads, int64_t head_dim, float* x, int64_t ldx,
               const int32_t* positions, const float* cos_table, const float* sin_table,
               bool inverse);
  void (*swiglu)(int64_t count, const float* gate, const float* up, float* out);
  void (*swiglu_vjp)(int64_t count, const float* gate, const float* up, const float* dout,
                     float* dgate, float* dup);
  void (*geglu)(int64_t count, const float* gate, const float* up, float* out);  // tanh form
  void (*geglu_vjp)(int64_t count, const float* gate, const float* up, const float* dout,
                    float* dgate, float* dup);
  // Vector functions; errors are stated in cpu/math.inl.h.
  void (*exp)(int64_t count, const float* x, float* y);
  void (*tanh)(int64_t count, const float* x, float* y);
  void (*axpy)(int64_t count, float a, const float* x, float* y);  // y += a x
  void (*scale)(int64_t count, float a, float* x);                 // x *= a
  bool (*finite)(int64_t count, const float* x);
  void (*adamw)(const AdamWConstants& c, int64_t count, float* param, const float* grad, float* m,
                float* v);

  // --- Head loss (cpu/softmax.inl.h).

  // Takes logits of the vocabulary entries [first, first + columns) into each row's state and
  // replaces them by exp(logit - max) (times the derivative of the soft cap). correction[r]: what
  // sums kept by the caller must be multiplied with. largest[r]: the row's largest logit in the
  // block. Returns an upper bound of the final probability of every entry of the block.
  float (*logits_step)(int64_t rows, int64_t columns, float* z, int64_t ldz, float softcap,
                       int64_t first, const int32_t* targets, LogitsRow* state, float* correction,
                       float* largest);
  // Replaces logits by their gradients scale[r] (probability - [entry is the target]), times the
  // derivative of the soft cap. Needs state.lse.
  void (*logits_vjp)(int64_t rows, int64_t columns, float* z, int64_t ldz, float softcap,
                     int64_t first, const int32_t* targets, const LogitsRow* state,
                     const float* scale);
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
