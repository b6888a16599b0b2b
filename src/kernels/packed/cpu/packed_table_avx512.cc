#if defined(__x86_64__)
#define EW_PACKED_NAMESPACE packed_avx512
#define EW_PACKED_NAME "avx512"
#include "kernels/packed/cpu/vec_avx512.h"
//
#include "kernels/packed/cpu/body.inl.h"
#endif
