#if defined(__x86_64__)
#define EW_ISA_NAMESPACE avx2
#include "kernels/cpu/vec_avx2.h"
//
#include "kernels/cpu/table.inl.h"
#endif
