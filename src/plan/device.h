// A device as the scheduler sees it: memory levels, kernel rates, limits. Measured on the machine
// at hand (schedule/measure.h) or written by hand for one that is not (devices/). Plain data;
// docs/device-profile.md describes the file.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edgewise::plan {

// One level of the memory hierarchy. Rates in GB (10^9 bytes) a second, all threads together, to
// and from the units that compute (caches, RAM) or the level above (disk).
struct MemoryLevel {
  std::string name;   // "l1", "l2", "l3", "ram", "disk"; "sram", "dram", "ssd"
  int64_t bytes = 0;  // capacity; 0: as good as unlimited
  double read_gbps = 0;
  double write_gbps = 0;        // 0: as fast as reading
  double cached_read_gbps = 0;  // disk: what the page cache holds already; 0: no page cache
  double processors = 0;        // disk: that reading keeps busy, of one (copying, making pages)
};

// The classes of work that a cost model tells apart.
enum class KernelKind : uint8_t {
  kLinearForward,       // Y = X W^T, dense or packed W
  kLinearBackward,      // dX = dY W, exact
  kLinearBackwardInt8,  // the same with packed W in integers
  kWeightGradient,      // dW = dY^T X, fp32
  kLora,                // the adapter's skinny products, forward
  kLoraBackward,
  kAttention,  // causal, forward
  kAttentionBackward,
  kHeadLoss,      // head, loss and gradient in one pass
  kHeadLossInt8,  // the same with the gradient in integers
  // The rest is counted in bytes, not operations.
  kElementwise,  // gated unit, forward and backward, where nothing more exact is known; copies
  kNorm,
  kNormBackward,
  kRotary,
  kGate,
  kGateBackward,
  kOptimizer,
};
inline constexpr size_t kKernelKinds = 17;
std::string_view KernelKindName(KernelKind kind);
// Work counted in 10^9 bytes instead of operations.
bool CountsBytes(KernelKind kind);

// How fast a kernel runs on one form of weights. Rates count the operations of the dense product
// (two per multiply-add): a sparse kernel that leaves work out shows a higher rate.
struct KernelRate {
  KernelKind kind = KernelKind::kLinearForward;
  int bits = 32;            // 32: fp32 weights, 16: half precision, else packed
  double sparsity = 0;      // share of weights that is zero
  bool blocks = false;      // zeros in whole blocks
  int64_t tokens = 0;       // rows of X
  int64_t out = 0, in = 0;  // of W
  double gops = 0;          // 10^9 operations a second, or bytes
  int64_t rank = 0;         // as Op::rank
};

struct CoreKind {
  int count = 0;
  double max_ghz = 0;    // 0: unknown
  int64_t capacity = 0;  // relative, as Linux states it for unlike cores; 0: all alike
};

struct Device {
  std::string name;
  std::string isa;
  std::string version;     // of the program that measured it
  bool simulated = false;  // figures from data sheets: results are simulations
  int threads = 0;
  std::vector<CoreKind> cores;
  double fp32_gflops = 0;  // from registers
  double int8_gops = 0;    // from registers; 0: no such instruction
  // Nearest to the arithmetic first; the last one is where files are.
  std::vector<MemoryLevel> levels;
  std::vector<KernelRate> kernels;
  int64_t memory_limit = 0;  // in force when measured; 0: unknown
  std::string memory_limit_source;
  std::string note;  // where hand-written figures come from

  const MemoryLevel* Level(std::string_view level) const;
  // The level in which the working set of a run lies (the last but one), and the one below it.
  const MemoryLevel& memory() const { return levels[levels.size() - 2]; }
  const MemoryLevel& disk() const { return levels.back(); }
};

// Error: fields missing, negative, of another type; fewer than two levels.
Result<Device> DeviceFromJson(const nlohmann::json& json);
nlohmann::ordered_json ToJson(const Device& device);

}  // namespace edgewise::plan
