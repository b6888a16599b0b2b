#define EW_PACKED_NAMESPACE packed_generic
#define EW_PACKED_NAME "generic"
#include "kernels/packed/cpu/vec_generic.h"
//
#include "kernels/packed/cpu/body.inl.h"
