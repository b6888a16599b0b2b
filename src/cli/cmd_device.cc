// edgewise device: what this machine can do, measured once and kept.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdlib>

#include "base/units.h"
#include "cli/commands.h"
#include "io/env.h"
#include "report/table.h"
#include "schedule/measure.h"

namespace edgewise::cli {
namespace {

std::string DeviceText(const plan::Device& d, const std::string& path) {
  std::string text =
      fmt::format("{}{}, {} threads, {}\n", d.name,
                  d.simulated ? " (simulated: figures from data sheets)" : "", d.threads, d.isa);
  for (const plan::CoreKind& c : d.cores) {
    text += fmt::format("cores: {}", c.count);
    if (c.max_ghz > 0) text += fmt::format(" of up to {:.2f} GHz", c.max_ghz);
    if (c.capacity > 0) text += fmt::format(", capacity {}", c.capacity);
    text += "\n";
  }
  if (d.memory_limit > 0) {
    text +=
        fmt::format("memory limit: {} ({})\n", FormatBytes(d.memory_limit), d.memory_limit_source);
  }
  text +=
      fmt::format("peak: fp32 {:.0f} Gflop/s, int8 {:.0f} Gop/s\n\n", d.fp32_gflops, d.int8_gops);
  report::Table levels({"level", "size", "read GB/s", "write GB/s", "page cache GB/s"});
  for (const plan::MemoryLevel& l : d.levels) {
    levels.AddRow({l.name, l.bytes > 0 ? FormatBytes(l.bytes) : "",
                   fmt::format("{:.2f}", l.read_gbps), fmt::format("{:.2f}", l.write_gbps),
                   l.cached_read_gbps > 0 ? fmt::format("{:.2f}", l.cached_read_gbps) : ""});
  }
  report::Table rates({"kernel", "bits", "zeros", "tokens", "out", "in", "Gop/s"});
  for (const plan::KernelRate& k : d.kernels) {
    rates.AddRow({std::string(plan::KernelKindName(k.kind)), fmt::format("{}", k.bits),
                  k.sparsity > 0
                      ? fmt::format("{:.0f}%{}", 100 * k.sparsity, k.blocks ? " blocks" : "")
                      : "",
                  fmt::format("{}", k.tokens), fmt::format("{}", k.out), fmt::format("{}", k.in),
                  fmt::format("{:.1f}", k.gops)});
  }
  text += levels.Render() + "\n" + rates.Render();
  if (!path.empty()) text += fmt::format("\nkept in {}\n", path);
  return text;
}

class DeviceCommand : public Command {
 public:
  std::string name() const override { return "device"; }
  std::string summary() const override { return "Measure this machine, or show its kept profile"; }

  void Declare(CLI::App& app) override {
    app.add_flag("--refresh", refresh_, "Measure again, also when there is a profile");
    app.add_option("--device", file_, "Show this device file instead of this machine");
    app.add_option("--disk", disk_, "Measure the disk of this directory (default: the cache's)");
    app.add_option("-o,--output", output_, "Write the profile here too");
  }

  Status Run(Invocation& inv) override {
    plan::Device device;
    std::string path = file_;
    if (!file_.empty()) {
      EW_ASSIGN(device, schedule::LoadDevice(file_));
    } else {
      EW_ASSIGN(device, MeasuredDevice(inv, refresh_, disk_, &path));
    }
    if (!output_.empty()) EW_RETURN_IF_ERROR(schedule::SaveDevice(device, output_));
    OrderedJson json = plan::ToJson(device);
    json["path"] = path.empty() ? OrderedJson(nullptr) : OrderedJson(path);
    inv.console().SetResult(std::move(json), DeviceText(device, path));
    return Status::Ok();
  }

 private:
  bool refresh_ = false;
  std::string file_, disk_, output_;
};

}  // namespace

std::string TemporaryDirectory() {
  const char* named = std::getenv("TMPDIR");
  return named != nullptr && PosixEnv().IsDirectory(named) ? named : "/tmp";
}

Result<plan::Device> MeasuredDevice(Invocation& inv, bool refresh, const std::string& disk,
                                    std::string* kept_in) {
  EW_ASSIGN(ExecContext * ctx, inv.Exec());
  const std::string path = schedule::DevicePath(*ctx, EDGEWISE_VERSION);
  if (kept_in != nullptr) *kept_in = path;
  if (!refresh && disk.empty()) {
    // One that cannot be read is measured again.
    Result<plan::Device> kept = schedule::LoadDevice(path);
    if (kept.ok()) return kept;
  }
  Env& env = PosixEnv();
  schedule::MeasureOptions options;
  options.disk_directory = disk;
  if (disk.empty()) {
    // Where nothing can be kept the machine is measured all the same.
    constexpr int64_t kLeast = int64_t{16} << 20;
    const std::string cache = DirName(path);
    bool usable = env.CreateDirs(cache).ok() && ::access(cache.c_str(), W_OK) == 0;
    const Result<int64_t> room = usable ? env.FreeBytes(cache) : Result<int64_t>(int64_t{0});
    usable = room.ok() && *room >= kLeast;
    options.disk_directory = usable ? cache : TemporaryDirectory();
    if (!usable) {
      inv.console().Log(
          fmt::format("note: {} cannot be written or is full; measuring the disk of {}", cache,
                      options.disk_directory));
    }
  }
  options.stop = &inv.stop();
  options.version = EDGEWISE_VERSION;
  options.progress = [&](std::string_view what) {
    inv.console().Log(fmt::format("measuring this machine: {}", what));
  };
  EW_ASSIGN(plan::Device device, schedule::MeasureDevice(*ctx, options));
  if (const Status kept = schedule::SaveDevice(device, path); !kept.ok()) {
    inv.console().Log("note: the profile is not kept: " + kept.message());
    if (kept_in != nullptr) kept_in->clear();
  }
  return device;
}

std::unique_ptr<Command> MakeDevice() { return std::make_unique<DeviceCommand>(); }

}  // namespace edgewise::cli
