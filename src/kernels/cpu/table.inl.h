// Everything of one instruction set, and its table.
#pragma once

#include "kernels/cpu/gemm.inl.h"

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
};

}  // namespace edgewise::kernels::EW_ISA_NAMESPACE
