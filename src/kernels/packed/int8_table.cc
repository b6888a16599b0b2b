#include "kernels/packed/int8_table.h"

namespace edgewise::kernels {

#define EW_DECLARE_TABLE(name)   \
  namespace name {               \
  extern const Int8Table kTable; \
  }
EW_DECLARE_TABLE(packed_generic)
#if defined(__x86_64__)
EW_DECLARE_TABLE(packed_avx2)
EW_DECLARE_TABLE(packed_avxvnni)
EW_DECLARE_TABLE(packed_avx512)
EW_DECLARE_TABLE(packed_avx512vnni)
EW_DECLARE_TABLE(packed_avx512vbmi2)
#elif defined(__aarch64__)
EW_DECLARE_TABLE(packed_neon)
EW_DECLARE_TABLE(packed_neondot)
#endif
#undef EW_DECLARE_TABLE

const Int8Table& Int8TableFor(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx2:
      return packed_avx2::kTable;
    case Isa::kAvxVnni:
      return packed_avxvnni::kTable;
    case Isa::kAvx512:
      return packed_avx512::kTable;
    case Isa::kAvx512Vnni:
      return packed_avx512vnni::kTable;
    case Isa::kAvx512Vbmi2:
      return packed_avx512vbmi2::kTable;
#elif defined(__aarch64__)
    case Isa::kNeon:
      return packed_neon::kTable;
    case Isa::kNeonDot:
    case Isa::kNeonI8mm:
      return packed_neondot::kTable;
#endif
    default:
      return packed_generic::kTable;
  }
}

}  // namespace edgewise::kernels
