#if defined(__x86_64__)
#define EW_PACKED_NAMESPACE packed_avx2
#define EW_PACKED_NAME "avx2"
#include "kernels/packed/cpu/vec_avx2.h"
//
#include "kernels/packed/cpu/body.inl.h"
#endif
