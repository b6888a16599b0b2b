// Everything of one instruction set, and its table.
#pragma once

#include "kernels/cpu/attention.inl.h"
#include "kernels/cpu/elementwise.inl.h"
#include "kernels/cpu/gemm.inl.h"
#include "kernels/cpu/softmax.inl.h"

namespace edgewise::kernels::EW_ISA_NAMESPACE {

#define EW_STRINGIFY_INNER(x) #x
#define EW_STRINGIFY(x) EW_STRINGIFY_INNER(x)

extern const KernelTable kTable;
const KernelTable kTable = {
    .name = EW_STRINGIFY(EW_ISA_NAMESPACE),
    .lanes = kLanes,
    .mr = kMr,
    .nr = kNr,
    .pack_b_transposed = PackBTransposed,
    .pack_b = PackB,
    .pack_a = PackA,
    .multiply = Multiply,
    .multiply_thin = MultiplyThin,
    .fma_loop = FmaLoop,
    .attention_forward_scratch = AttentionForwardScratch,
    .attention_forward = AttentionForwardTask,
    .attention_backward_scratch = AttentionBackwardScratch,
    .attention_backward = AttentionBackwardTask,
    .rms_norm = RmsNorm,
    .rms_norm_vjp = RmsNormVjp,
    .rms_norm_weight_vjp = RmsNormWeightVjp,
    .rope = Rope,
    .swiglu = SwiGlu,
    .swiglu_vjp = SwiGluVjp,
    .geglu = GeGlu,
    .geglu_vjp = GeGluVjp,
    .exp = ExpVector,
    .tanh = TanhVector,
    .axpy = Axpy,
    .scale = Scale,
    .finite = Finite,
    .adamw = AdamW,
    .logits_step = LogitsStep,
    .logits_vjp = LogitsVjp,
};

}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
