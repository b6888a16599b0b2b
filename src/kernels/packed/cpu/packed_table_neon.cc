#if defined(__aarch64__)
#define EW_PACKED_NAMESPACE packed_neon
#define EW_PACKED_NAME "neon"
#include "kernels/packed/cpu/vec_neon.h"
//
#include "kernels/packed/cpu/body.inl.h"
#endif
