#if defined(__aarch64__)
#define EW_ISA_NAMESPACE neon
#include "kernels/cpu/vec_neon.h"
//
#include "kernels/cpu/table.inl.h"
#endif
