#include "schedule/measure.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>

#include "exec/memory.h"
#include "io/env.h"
#include "io/json.h"
#include "kernels/peaks.h"

namespace edgewise::schedule {
namespace {

int64_t ReadNumber(const std::string& path) {
  std::ifstream in(path);
  int64_t value = 0;
  return in >> value ? value : 0;
}

// Cores by what Linux says of them: capacity on unlike cores (Arm), highest frequency.
std::vector<plan::CoreKind> CoreKinds() {
  std::map<std::pair<int64_t, int64_t>, int> kinds;
  for (int cpu = 0; cpu < 4096; ++cpu) {
    const std::string dir = fmt::format("/sys/devices/system/cpu/cpu{}", cpu);
    if (!PosixEnv().Exists(dir)) break;
    ++kinds[{ReadNumber(dir + "/cpu_capacity"), ReadNumber(dir + "/cpufreq/cpuinfo_max_freq")}];
  }
  std::vector<plan::CoreKind> out;
  for (const auto& [kind, count] : kinds) {
    out.push_back({count, static_cast<double>(kind.second) * 1e-6, kind.first});
  }
  return out;
}

}  // namespace

Result<plan::Device> MeasureDevice(ExecContext& ctx, const MeasureOptions& options) {
  const auto say = [&](std::string_view what) {
    if (options.progress) options.progress(what);
  };
  const CpuInfo& cpu = ctx.cpu();
  plan::Device d;
  d.name = cpu.name;
  d.isa = std::string(IsaName(ctx.isa()));
  d.version = options.version;
  d.threads = ctx.threads();
  d.cores = CoreKinds();
  const MemoryLimit limit = DetectMemoryLimit();
  d.memory_limit = limit.bytes;
  d.memory_limit_source = limit.source;

  say("arithmetic");
  const kernels::Peaks peaks = kernels::MeasurePeaks(ctx);
  d.fp32_gflops = peaks.fp32_gflops;
  d.int8_gops = peaks.int8_gops;

  say("caches and memory");
  const auto level = [&](const char* name, int64_t capacity, int64_t per_thread) {
    const Bandwidth b = MeasureBandwidth(ctx, per_thread);
    d.levels.push_back({name, capacity, b.read_gbps, b.write_gbps, 0});
  };
  level("l1", cpu.l1d_bytes, cpu.l1d_bytes / 2);
  level("l2", cpu.l2_bytes, cpu.l2_bytes / 2);
  // Half of a thread's share, but beyond its level 2 cache.
  const int64_t share = cpu.l3_bytes / (2 * ctx.threads());
  if (share > 2 * cpu.l2_bytes) {
    level("l3", cpu.l3_bytes, std::min<int64_t>(share, 4 * cpu.l2_bytes));
  }
  level("ram", 0, int64_t{128} << 20);
  d.levels.back().read_gbps = std::max(d.levels.back().read_gbps, peaks.read_gbps);

  say("disk");
  EW_ASSIGN(const DiskRates disk, MeasureDisk(options.disk_directory, options.disk_bytes));
  d.levels.push_back(
      {"disk", 0, disk.read_gbps, disk.write_gbps, disk.cached_read_gbps, disk.read_processors});

  EW_ASSIGN(d.kernels, MeasureKernels(ctx, options));
  return d;
}

plan::Device BareDevice(ExecContext& ctx, int64_t room) {
  plan::Device d;
  d.name = ctx.cpu().name;
  d.isa = std::string(IsaName(ctx.isa()));
  d.threads = ctx.threads();
  // Every thread has an array of its own.
  int64_t bytes = int64_t{16} << 20;
  if (room != 0) bytes = std::clamp(room / ctx.threads(), int64_t{256} << 10, bytes);
  const Bandwidth ram = MeasureBandwidth(ctx, bytes);
  d.levels.push_back({"ram", 0, ram.read_gbps, ram.write_gbps, 0});
  d.levels.push_back({"disk", 0, ram.read_gbps, ram.write_gbps, 0});
  return d;
}

std::string DevicePath(const ExecContext& ctx, std::string_view version) {
  const char* xdg = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const std::string cache = xdg != nullptr && *xdg == '/' ? std::string(xdg)
                            : home != nullptr             ? std::string(home) + "/.cache"
                                                          : std::string("/tmp");
  const std::string key =
      fmt::format("{} {} {} {}", ctx.cpu().name, IsaName(ctx.isa()), ctx.threads(), version);
  return fmt::format("{}/edgewise/device-{:016x}.json", cache, XXH3_64bits(key.data(), key.size()));
}

Result<plan::Device> LoadDevice(const std::string& path) {
  if (!PosixEnv().Exists(path)) return NotFound(fmt::format("{}: no such device file", path));
  EW_ASSIGN(const Json json, ReadJsonFile(path));
  return plan::DeviceFromJson(json).WithContext(path);
}

Status SaveDevice(const plan::Device& device, const std::string& path) {
  Env& env = PosixEnv();
  EW_RETURN_IF_ERROR(env.CreateDirs(DirName(path)));
  return WriteFileAtomic(env, path, DumpJson(plan::ToJson(device), 1) + "\n");
}

}  // namespace edgewise::schedule
