#include "exec/cpu.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <thread>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace edgewise {
namespace {

constexpr Isa kAllIsas[] = {Isa::kGeneric, Isa::kAvx2,       Isa::kAvxVnni,
                            Isa::kAvx512,  Isa::kAvx512Vnni, Isa::kAvx512Vbmi2,
                            Isa::kNeon,    Isa::kNeonDot,    Isa::kNeonI8mm};

#if defined(__x86_64__)
// GCC 12's __builtin_cpu_supports does not know "avxvnni" everywhere; CPUID leaf 7.1, EAX bit 4.
bool CpuHasAvxVnni() {
  uint32_t eax = 7, ebx = 0, ecx = 1, edx = 0;
  __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
  return (eax & (1u << 4)) != 0;
}
#endif

std::vector<Isa> DetectIsas() {
  std::vector<Isa> isas = {Isa::kGeneric};
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (avx2) isas.push_back(Isa::kAvx2);
  if (avx2 && CpuHasAvxVnni()) isas.push_back(Isa::kAvxVnni);
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512) isas.push_back(Isa::kAvx512);
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (vnni) isas.push_back(Isa::kAvx512Vnni);
  // Some processors have VNNI alone (Cascade Lake).
  const bool vbmi2 = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2");
  if (vnni && vbmi2) isas.push_back(Isa::kAvx512Vbmi2);
#elif defined(__aarch64__)
  isas.push_back(Isa::kNeon);
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) {
    isas.push_back(Isa::kNeonDot);
    if (getauxval(AT_HWCAP2) & HWCAP2_I8MM) isas.push_back(Isa::kNeonI8mm);
  }
#endif
  return isas;
}

int64_t CacheBytes(int sysconf_name, int64_t fallback) {
  const long n = ::sysconf(sysconf_name);
  return n > 0 ? n : fallback;
}

CpuInfo DetectCpu() {
  CpuInfo info;
  info.name = "unknown";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (line.rfind("model name", 0) == 0 || line.rfind("CPU part", 0) == 0) {
      const size_t colon = line.find(": ");
      if (colon != std::string::npos) info.name = line.substr(colon + 2);
      break;
    }
  }
  cpu_set_t set;
  CPU_ZERO(&set);
  if (::sched_getaffinity(0, sizeof set, &set) == 0) {
    info.cores = std::max(1, CPU_COUNT(&set));
  } else {
    info.cores = std::max(1u, std::thread::hardware_concurrency());
  }
  info.l1d_bytes = CacheBytes(_SC_LEVEL1_DCACHE_SIZE, info.l1d_bytes);
  info.l2_bytes = CacheBytes(_SC_LEVEL2_CACHE_SIZE, info.l2_bytes);
  info.l3_bytes = CacheBytes(_SC_LEVEL3_CACHE_SIZE, 0);
  return info;
}

}  // namespace

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kGeneric:
      return "generic";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avx-vnni";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Vnni:
      return "avx512-vnni";
    case Isa::kAvx512Vbmi2:
      return "avx512-vbmi2";
    case Isa::kNeon:
      return "neon";
    case Isa::kNeonDot:
      return "neon-dot";
    case Isa::kNeonI8mm:
      return "neon-i8mm";
  }
  return "unknown";
}

Result<Isa> ParseIsa(std::string_view name) {
  std::string known;
  for (Isa isa : kAllIsas) {
    if (IsaName(isa) == name) return isa;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", IsaName(isa));
  }
  return InvalidArgument(fmt::format("'{}' is not an instruction set; known: {}", name, known));
}

const std::vector<Isa>& SupportedIsas() {
  static const std::vector<Isa> isas = DetectIsas();
  return isas;
}

bool IsaSupported(Isa isa) {
  const auto& isas = SupportedIsas();
  return std::find(isas.begin(), isas.end(), isa) != isas.end();
}

Result<Isa> ChooseIsa() {
  if (const char* forced = std::getenv("EDGEWISE_ISA"); forced != nullptr && *forced != '\0') {
    EW_ASSIGN(const Isa isa, ParseIsa(forced));
    if (!IsaSupported(isa)) {
      return Unsupported(fmt::format("EDGEWISE_ISA={} cannot run on this processor", forced));
    }
    return isa;
  }
  Isa best = Isa::kGeneric;
  // Detection lists narrower sets first; 512-bit tables contain everything AVX-VNNI has.
  for (Isa isa : SupportedIsas()) best = isa;
  return best;
}

const CpuInfo& GetCpuInfo() {
  static const CpuInfo info = DetectCpu();
  return info;
}

}  // namespace edgewise
