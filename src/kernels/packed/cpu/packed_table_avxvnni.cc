#if defined(__x86_64__)
#define EW_PACKED_NAMESPACE packed_avxvnni
#define EW_PACKED_NAME "avx-vnni"
#define EW_VNNI
#include "kernels/packed/cpu/vec_avx2.h"
//
#include "kernels/packed/cpu/body.inl.h"
#endif
