#define EW_ISA_NAMESPACE generic
#include "kernels/cpu/vec_generic.h"
//
#include "kernels/cpu/table.inl.h"
