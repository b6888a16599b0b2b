#include "exec/memory.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>
#include <vector>

namespace edgewise {
namespace {

// cgroup v1 writes "no limit" as the largest multiple of the page size; nothing real is this large.
constexpr int64_t kNoLimit = int64_t{1} << 60;

std::optional<std::string> ReadSmallFile(const std::string& path) {
  std::ifstream in(path);
  if (!in) return std::nullopt;
  std::string text(1 << 16, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(in.gcount()));
  return text;
}

std::optional<int64_t> ParseNumber(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data() || value < 0) return std::nullopt;
  return value;
}

// The number after `key` at the start of a line.
std::optional<int64_t> Field(const std::string& text, std::string_view key) {
  size_t at = 0;
  while (at < text.size()) {
    size_t end = text.find('\n', at);
    if (end == std::string::npos) end = text.size();
    const std::string_view line(text.data() + at, end - at);
    if (line.substr(0, key.size()) == key) return ParseNumber(line.substr(key.size()));
    at = end + 1;
  }
  return std::nullopt;
}

struct Candidates {
  MemoryLimit best;
  void Offer(int64_t bytes, std::string source) {
    bytes = std::max<int64_t>(bytes, 1);
    if (best.bytes == 0 || bytes < best.bytes) best = {bytes, std::move(source)};
  }
};

// What of `limit` this process may hold: all but what other members hold for good.
int64_t Share(int64_t limit, const std::string& stat, std::initializer_list<std::string_view> keys,
              int64_t own_anon) {
  int64_t used = 0;
  for (std::string_view key : keys) used += Field(stat, key).value_or(0);
  return limit - std::max<int64_t>(0, used - own_anon);
}

void OfferCgroup(const std::string& mount, std::string path, const char* limit_name,
                 std::initializer_list<std::string_view> keys, const char* label, int64_t own_anon,
                 Candidates& out) {
  if (path.find("..") != std::string::npos) path.assign(1, '/');
  for (;;) {
    const std::string dir = path == "/" ? mount : mount + path;
    if (const auto text = ReadSmallFile(dir + "/" + limit_name)) {
      // "max" is not a number, hence no limit.
      const std::optional<int64_t> limit = ParseNumber(*text);
      if (limit && *limit < kNoLimit) {
        const std::string stat = ReadSmallFile(dir + "/memory.stat").value_or("");
        out.Offer(Share(*limit, stat, keys, own_anon),
                  std::string(label) + " " + limit_name + " (" + dir + ")");
      }
    }
    if (path == "/" || path.empty()) return;
    const size_t slash = path.rfind('/');
    path.resize(slash == 0 || slash == std::string::npos ? 1 : slash);
  }
}

bool HasController(std::string_view list, std::string_view name) {
  while (!list.empty()) {
    const size_t comma = list.find(',');
    if (list.substr(0, comma) == name) return true;
    if (comma == std::string_view::npos) return false;
    list.remove_prefix(comma + 1);
  }
  return false;
}

}  // namespace

ProcessMemory ReadProcessMemory(const std::string& proc) {
  ProcessMemory out;
  const auto text = ReadSmallFile(proc + "/self/status");
  if (!text) return out;
  out.rss_bytes = Field(*text, "VmRSS:").value_or(0) * 1024;
  out.peak_rss_bytes = std::max(Field(*text, "VmHWM:").value_or(0) * 1024, out.rss_bytes);
  out.anon_bytes = Field(*text, "RssAnon:").value_or(0) * 1024;
  return out;
}

bool ResetPeakRss() {
  const int fd = ::open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool ok = ::write(fd, "5", 1) == 1;
  ::close(fd);
  return ok;
}

MemoryLimit DetectMemoryLimit(const std::string& root, bool use_rlimit) {
  Candidates out;
  const ProcessMemory own = ReadProcessMemory(root + "/proc");

  // Lines of /proc/self/cgroup: "0::/path" (v2), "9:memory,hugetlb:/path" (v1).
  std::istringstream lines(ReadSmallFile(root + "/proc/self/cgroup").value_or(""));
  for (std::string line; std::getline(lines, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos || second + 1 >= line.size()) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (path.front() != '/') continue;
    if (controllers.empty()) {
      OfferCgroup(root + "/sys/fs/cgroup", path, "memory.max", {"anon ", "slab_unreclaimable "},
                  "cgroup v2", own.anon_bytes, out);
    } else if (HasController(controllers, "memory")) {
      OfferCgroup(root + "/sys/fs/cgroup/memory", path, "memory.limit_in_bytes", {"total_rss "},
                  "cgroup v1", own.anon_bytes, out);
    }
  }
  if (use_rlimit) {
    struct rlimit as;
    if (::getrlimit(RLIMIT_AS, &as) == 0 && as.rlim_cur != RLIM_INFINITY &&
        as.rlim_cur < static_cast<rlim_t>(kNoLimit)) {
      out.Offer(static_cast<int64_t>(as.rlim_cur), "RLIMIT_AS (ulimit -v)");
    }
  }
  const std::string meminfo = ReadSmallFile(root + "/proc/meminfo").value_or("");
  if (const auto available = Field(meminfo, "MemAvailable:")) {
    out.Offer(*available * 1024 / 10 * 8 + own.anon_bytes, "80% of MemAvailable");
  }
  return out.best;
}

int64_t DataLimitBytes(const std::string& proc) {
  rlimit limit{};
  if (getrlimit(RLIMIT_DATA, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 0;
  const auto text = ReadSmallFile(proc + "/self/status");
  if (!text) return 0;
  const int64_t mapped = Field(*text, "VmData:").value_or(0) * 1024;
  const int64_t touched = Field(*text, "RssAnon:").value_or(0) * 1024;
  return std::max<int64_t>(
      1, static_cast<int64_t>(limit.rlim_cur) - std::max<int64_t>(0, mapped - touched));
}

}  // namespace edgewise
