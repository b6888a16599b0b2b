// Code for an instruction set beyond the baseline must never be shared with other translation
// units: an inline function or template instance with external linkage that was compiled with, say,
// AVX-512 could be the copy that the linker keeps for everybody, and the program would die on older
// processors. So a file for one instruction set
//  - is compiled alone with its flags (src/kernels/CMakeLists.txt),
//  - defines EW_ISA_NAMESPACE and includes vec_<set>.h, then bodies (*.inl.h),
//  - keeps everything in an unnamed namespace, inlines through EW_INLINE, uses neither standard
//    algorithms nor <cmath>, and exports one constant table of functions.
#pragma once

#define EW_INLINE inline __attribute__((always_inline))
