// Measures the machine at hand: what every prediction rests on. Kernels: the median of several
// runs; bandwidths: the best, since other work only ever makes them slower.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "plan/device.h"
#include "plan/workload.h"

namespace edgewise::schedule {

struct MeasureOptions {
  std::string disk_directory;               // where the disk is measured (models lie there)
  int64_t disk_bytes = int64_t{256} << 20;  // of the temporary file
  std::string version;                      // of the program, for the record
  // Called with what is measured next; may be empty.
  std::function<void(std::string_view)> progress;
  const std::atomic<bool>* stop = nullptr;  // asked between measurements
};

// The whole profile, about half a minute. Error: the directory cannot be written, or has no room;
// kInterrupted.
Result<plan::Device> MeasureDevice(ExecContext& ctx, const MeasureOptions& options);

// ---- Parts of it ----
// Rates of the kernels on all forms of weights at two sizes, for many rows and for one. Error:
// kInterrupted.
Result<std::vector<plan::KernelRate>> MeasureKernels(ExecContext& ctx,
                                                     const MeasureOptions& options);
// Seconds of one operation: the median of several runs on operands of its own, in several copies as
// far as `room` bytes allow (0: as it likes). Error: there is no such operation (sizes, forms).
Result<double> MeasureOp(ExecContext& ctx, const plan::Op& op, int64_t room = 0);
// This machine with nothing measured but its RAM, for MeasureMissing to fill. `room`: bytes that
// measuring may take; 0: as many as it likes.
plan::Device BareDevice(ExecContext& ctx, int64_t room = 0);
// Measures the workload's operations that the device's profile does not hold in exactly their form
// and size, and adds their rates to it: a few seconds for a large model, memory for one operation
// (`room` as above).
Status MeasureMissing(ExecContext& ctx, const plan::Workload& workload, plan::Device* device,
                      int64_t room = 0);
// GB/s at which all threads together read and write arrays of `bytes` each has for itself.
struct Bandwidth {
  double read_gbps = 0, write_gbps = 0;
};
Bandwidth MeasureBandwidth(ExecContext& ctx, int64_t bytes_per_thread);
// Sequential reads and writes of 1 MiB pieces of a new file, page cache left out (O_DIRECT, or
// dropped where the file system has none) and page cache used; of less than `bytes` where there is
// no room for more. The file has no name while it is used, so that nothing is left of it.
struct DiskRates {
  double read_gbps = 0, cached_read_gbps = 0, write_gbps = 0;
  double read_processors = 0;  // of one, that reading past the page cache keeps busy
};
Result<DiskRates> MeasureDisk(const std::string& directory, int64_t bytes);

// Where the profile of this machine is kept: $XDG_CACHE_HOME/edgewise (~/.cache/edgewise), by
// processor, instruction set, threads and version.
std::string DevicePath(const ExecContext& ctx, std::string_view version);
// The kept profile. Error: kNotFound when there is none; kBadInput when it cannot be read.
Result<plan::Device> LoadDevice(const std::string& path);
Status SaveDevice(const plan::Device& device, const std::string& path);

}  // namespace edgewise::schedule
