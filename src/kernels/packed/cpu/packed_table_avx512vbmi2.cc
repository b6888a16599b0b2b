#if defined(__x86_64__)
#define EW_PACKED_NAMESPACE packed_avx512vbmi2
#define EW_PACKED_NAME "avx512-vbmi2"
#define EW_VNNI
#define EW_VBMI2
#include "kernels/packed/cpu/vec_avx512.h"
//
#include "kernels/packed/cpu/body.inl.h"
#endif
