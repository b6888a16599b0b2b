#include "cli/run_file.h"

#include "io/atomic_file.h"
#include "io/env.h"
#include "tune/run_dir.h"

namespace edgewise::cli {

Status AddToRunFile(const std::string& run_dir, const OrderedJson& results) {
  const std::string path = JoinPath(run_dir, tune::kRunFile);
  EW_ASSIGN(const std::string text, PosixEnv().ReadFile(path, int64_t{16} << 20));
  OrderedJson run = OrderedJson::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!run.is_object()) return BadInput(path + " is not a JSON object");
  for (const auto& [key, value] : results.items()) run[key] = value;
  return WriteFileAtomic(PosixEnv(), path, DumpJson(run, 2) + "\n");
}

OrderedJson MemoryTrace(const tune::MemoryEstimate& memory, int64_t cache_bytes,
                        int64_t peak_bytes) {
  OrderedJson json;
  json["peak_bytes"] = peak_bytes;
  json["categories"] = {{"weights", memory.weights},         {"adapter", memory.trainable},
                        {"gradients", memory.gradients},     {"optimizer", memory.optimizer},
                        {"activations", memory.activations}, {"cache", cache_bytes},
                        {"scratch", memory.scratch},         {"program", memory.runtime}};
  return json;
}

}  // namespace edgewise::cli
