#include "kernels/kernel_table.h"

namespace edgewise::kernels {

const KernelTable& TableFor(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx2:
    case Isa::kAvxVnni:
      return avx2::kTable;
    case Isa::kAvx512:
    case Isa::kAvx512Vnni:
    case Isa::kAvx512Vbmi2:
      return avx512::kTable;
#elif defined(__aarch64__)
    case Isa::kNeon:
    case Isa::kNeonDot:
    case Isa::kNeonI8mm:
      return neon::kTable;
#endif
    default:
      return generic::kTable;
  }
}

}  // namespace edgewise::kernels
