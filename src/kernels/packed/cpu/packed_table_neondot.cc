#if defined(__aarch64__)
#define EW_PACKED_NAMESPACE packed_neondot
#define EW_PACKED_NAME "neon-dot"
#define EW_DOT
#include "kernels/packed/cpu/vec_neon.h"
//
#include "kernels/packed/cpu/body.inl.h"
#endif
