#include "plan/device.h"

#include <algorithm>
#include <array>

#include "plan/json_fields.h"

namespace edgewise::plan {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::array<std::string_view, kKernelKinds> kKindNames = {"linear-forward",
                                                                   "linear-backward",
                                                                   "linear-backward-int8",
                                                                   "weight-gradient",
                                                                   "lora",
                                                                   "lora-backward",
                                                                   "attention",
                                                                   "attention-backward",
                                                                   "head-loss",
                                                                   "head-loss-int8",
                                                                   "elementwise",
                                                                   "norm",
                                                                   "norm-backward",
                                                                   "rotary",
                                                                   "gate",
                                                                   "gate-backward",
                                                                   "optimizer"};

// What the largest machines have, with room to spare. A plan's cost grows with the kernels, and
// what it sets aside with the threads.
constexpr int64_t kMostThreads = 4096;
constexpr size_t kMostCores = 64, kMostLevels = 16, kMostKernels = 8192;

MemoryLevel LevelFromJson(const json& j, size_t i, Status* status) {
  Fields f(j, fmt::format("levels[{}]", i));
  MemoryLevel l;
  l.name = f.Text("name");
  l.bytes = f.Count("bytes");
  l.read_gbps = f.Rate("read_gbps");
  l.write_gbps = f.Rate("write_gbps");
  l.cached_read_gbps = f.Rate("cached_read_gbps");
  l.processors = f.Number("processors");
  if (l.name.empty()) f.Fail("name", "is missing");
  if (l.read_gbps <= 0) f.Fail("read_gbps", "is missing or 0");
  if (status->ok()) *status = f.status();
  return l;
}

KernelRate RateFromJson(const json& j, size_t i, Status* status) {
  Fields f(j, fmt::format("kernels[{}]", i));
  KernelRate r;
  const std::string kind = f.Text("kind");
  const auto found = std::find(kKindNames.begin(), kKindNames.end(), kind);
  if (found == kKindNames.end()) f.Fail("kind", "is not a kind of kernel");
  r.kind = static_cast<KernelKind>(found == kKindNames.end() ? 0 : found - kKindNames.begin());
  r.bits = static_cast<int>(f.Count("bits", 32, 64));
  r.sparsity = f.Number("sparsity");
  r.blocks = f.Flag("blocks");
  r.tokens = f.Count("tokens");
  r.out = f.Count("out");
  r.in = f.Count("in");
  r.gops = f.Rate("gops");
  r.rank = f.Count("rank");
  if (r.gops <= 0) f.Fail("gops", "is missing or 0");
  if (r.sparsity >= 1) f.Fail("sparsity", "is not below 1");
  if (status->ok()) *status = f.status();
  return r;
}

}  // namespace

std::string_view KernelKindName(KernelKind kind) { return kKindNames[static_cast<size_t>(kind)]; }

bool CountsBytes(KernelKind kind) { return kind >= KernelKind::kElementwise; }

const MemoryLevel* Device::Level(std::string_view level) const {
  for (const MemoryLevel& l : levels) {
    if (l.name == level) return &l;
  }
  return nullptr;
}

Result<Device> DeviceFromJson(const json& j) {
  Fields f(j, "device");
  Device d;
  d.name = f.Text("name");
  d.isa = f.Text("isa");
  d.version = f.Text("version");
  d.simulated = f.Flag("simulated");
  d.threads = static_cast<int>(f.Count("threads", 0, kMostThreads));
  d.fp32_gflops = f.Rate("fp32_gflops");
  d.int8_gops = f.Rate("int8_gops");
  d.memory_limit = f.Count("memory_limit_bytes");
  d.memory_limit_source = f.Text("memory_limit_source");
  d.note = f.Text("note");
  Status status;
  for (const json& c : f.List("cores", kMostCores)) {
    Fields core(c, "cores");
    d.cores.push_back({static_cast<int>(core.Count("count", 0, kMostThreads)),
                       core.Number("max_ghz"), core.Count("capacity")});
    if (status.ok()) status = core.status();
  }
  for (const json& l : f.List("levels", kMostLevels))
    d.levels.push_back(LevelFromJson(l, d.levels.size(), &status));
  for (const json& k : f.List("kernels", kMostKernels))
    d.kernels.push_back(RateFromJson(k, d.kernels.size(), &status));
  if (d.name.empty()) f.Fail("name", "is missing");
  if (d.levels.size() < 2) f.Fail("levels", "needs at least memory and disk");
  if (d.kernels.empty()) f.Fail("kernels", "is missing");
  EW_RETURN_IF_ERROR(f.status());
  EW_RETURN_IF_ERROR(status);
  return d;
}

ordered_json ToJson(const Device& d) {
  ordered_json j;
  j["name"] = d.name;
  j["simulated"] = d.simulated;
  if (!d.isa.empty()) j["isa"] = d.isa;
  if (!d.version.empty()) j["version"] = d.version;
  if (d.threads > 0) j["threads"] = d.threads;
  if (!d.note.empty()) j["note"] = d.note;
  j["cores"] = ordered_json::array();
  for (const CoreKind& c : d.cores) {
    j["cores"].push_back({{"count", c.count}, {"max_ghz", c.max_ghz}, {"capacity", c.capacity}});
  }
  j["fp32_gflops"] = d.fp32_gflops;
  j["int8_gops"] = d.int8_gops;
  j["memory_limit_bytes"] = d.memory_limit;
  j["memory_limit_source"] = d.memory_limit_source;
  j["levels"] = ordered_json::array();
  for (const MemoryLevel& l : d.levels) {
    ordered_json level = {{"name", l.name},
                          {"bytes", l.bytes},
                          {"read_gbps", l.read_gbps},
                          {"write_gbps", l.write_gbps}};
    if (l.cached_read_gbps > 0) level["cached_read_gbps"] = l.cached_read_gbps;
    if (l.processors > 0) level["processors"] = l.processors;
    j["levels"].push_back(std::move(level));
  }
  j["kernels"] = ordered_json::array();
  for (const KernelRate& k : d.kernels) {
    j["kernels"].push_back({{"kind", KernelKindName(k.kind)},
                            {"bits", k.bits},
                            {"sparsity", k.sparsity},
                            {"blocks", k.blocks},
                            {"tokens", k.tokens},
                            {"out", k.out},
                            {"in", k.in},
                            {"gops", k.gops}});
    if (k.rank > 0) j["kernels"].back()["rank"] = k.rank;
  }
  return j;
}

}  // namespace edgewise::plan
