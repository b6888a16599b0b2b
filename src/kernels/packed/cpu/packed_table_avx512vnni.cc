#if defined(__x86_64__)
#define EW_PACKED_NAMESPACE packed_avx512vnni
#define EW_PACKED_NAME "avx512-vnni"
#define EW_VNNI
#include "kernels/packed/cpu/vec_avx512.h"
//
#include "kernels/packed/cpu/body.inl.h"
#endif
