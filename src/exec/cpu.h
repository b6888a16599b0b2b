// What the processor can do and how large its caches are.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edgewise {

// One kernel table each. The order is not a preference: see BestIsa.
enum class Isa {
  kGeneric,      // plain C++
  kAvx2,         // AVX2 + FMA + F16C
  kAvxVnni,      // kAvx2 + AVX-VNNI (256-bit integer dot products)
  kAvx512,       // AVX-512 F/BW/DQ/VL
  kAvx512Vnni,   // kAvx512 + AVX512-VNNI (512-bit integer dot products)
  kAvx512Vbmi2,  // kAvx512Vnni + AVX512-VBMI/VBMI2 (byte expand: unstructured sparsity)
  kNeon,         // Armv8 Advanced SIMD
  kNeonDot,      // kNeon + dot product instructions (sdot)
  kNeonI8mm,     // kNeonDot + int8 matrix multiply (smmla)
};

std::string_view IsaName(Isa isa);  // "generic", "avx2", "avx-vnni", "avx512", "avx512-vnni", ...
Result<Isa> ParseIsa(std::string_view name);

// Those that this processor and operating system can run, kGeneric first.
const std::vector<Isa>& SupportedIsas();
bool IsaSupported(Isa isa);

// The one to use: $EDGEWISE_ISA if set (an error when unknown or not supported), else the widest.
Result<Isa> ChooseIsa();

struct CpuInfo {
  std::string name;  // as the system names it
  int cores = 1;     // that this process may run on
  int64_t l1d_bytes = 32 << 10;
  int64_t l2_bytes = 1 << 20;
  int64_t l3_bytes = 0;  // 0: none or unknown
};

const CpuInfo& GetCpuInfo();

}  // namespace edgewise
