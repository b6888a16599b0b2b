// How much memory this process uses, and how much it may use.
#pragma once

#include <cstdint>
#include <string>

namespace edgewise {

struct ProcessMemory {
  int64_t rss_bytes = 0;       // resident now, mapped file pages included (VmRSS)
  int64_t peak_rss_bytes = 0;  // the most so far (VmHWM)
  int64_t anon_bytes = 0;      // of rss: not backed by a file (RssAnon)
};

// Of this process; zeros where the system does not tell. `proc` is the proc file system's root.
ProcessMemory ReadProcessMemory(const std::string& proc = "/proc");

// Makes the peak start again from the current size. False where the system forbids it (some
// containers): the peak then stays that of the whole process.
bool ResetPeakRss();

struct MemoryLimit {
  int64_t bytes = 0;   // the most that this process may have resident; 0: nothing is known
  std::string source;  // what said so: "cgroup v2 memory.max (/sys/fs/cgroup/...)", ...
};

// What RLIMIT_DATA leaves for memory that is touched: the limit without what this process has
// mapped writable and never touched (VmData - RssAnon: stacks, buffers of libraries), which counts
// as well. 0: there is no such limit.
int64_t DataLimitBytes(const std::string& proc = "/proc");

// The smallest of: cgroup v2 memory.max on the way up the hierarchy, cgroup v1
// memory.limit_in_bytes, RLIMIT_AS, and 80% of MemAvailable plus what this process holds already.
// From a cgroup's limit only what others cannot give back is taken off (anonymous memory and
// unreclaimable slab in memory.stat), since "current" counts page cache, which the kernel drops
// under pressure. `root` stands before every path that is read ("" in production; tests put a
// folder there). `use_rlimit` false: RLIMIT_AS is not asked for.
MemoryLimit DetectMemoryLimit(const std::string& root = "", bool use_rlimit = true);

}  // namespace edgewise
