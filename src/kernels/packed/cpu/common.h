// For the files of this folder alone. As kernels/cpu/inline.h says, code for an instruction set
// must not leak: everything sits in unnamed namespaces of one translation unit, and no standard
// header that defines functions is included.
#pragma once

#include <utility>  // integer_sequence: a type, no code

#include "kernels/cpu/inline.h"
#include "kernels/packed/int8_table.h"

#define EW_LAMBDA_INLINE __attribute__((always_inline))
#define EW_NOINLINE __attribute__((noinline))
