#if defined(__x86_64__)
#define EW_ISA_NAMESPACE avx512
#include "kernels/cpu/vec_avx512.h"
//
#include "kernels/cpu/table.inl.h"
#endif
