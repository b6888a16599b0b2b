// Finding, repairing and pruning the checkpoints of a directory.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "formats/checkpoint.h"
#include "formats/checkpoint_manifest.h"
#include "formats/printable.h"

namespace edgewise::formats {
namespace {

constexpr int64_t kMaxManifestBytes = int64_t{16} << 20;

struct Entry {
  enum class Kind { kComplete, kTemporary, kReplaced };
  std::string name;
  std::string base;  // "checkpoint-000120"
  int64_t step = 0;
  Kind kind = Kind::kComplete;
};

// Nothing for names that are no checkpoint's: those are never touched.
std::optional<Entry> ParseName(const std::string& name) {
  constexpr std::string_view kPrefix = "checkpoint-";
  if (name.compare(0, kPrefix.size(), kPrefix) != 0) return std::nullopt;
  Entry entry;
  entry.name = name;
  const char* begin = name.data() + kPrefix.size();
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(begin, end, entry.step);
  if (error != std::errc() || stop == begin || *begin == '-') return std::nullopt;
  entry.base = name.substr(0, static_cast<size_t>(stop - name.data()));
  const std::string_view rest(stop, static_cast<size_t>(end - stop));
  if (rest.empty()) {
    entry.kind = Entry::Kind::kComplete;
  } else if (rest.substr(0, 5) == ".tmp-") {
    entry.kind = Entry::Kind::kTemporary;
  } else if (rest.substr(0, 5) == ".old-") {
    entry.kind = Entry::Kind::kReplaced;
  } else {
    return std::nullopt;
  }
  return entry;
}

// Newest first; of one step the complete one before one that was being replaced.
Result<std::vector<Entry>> ListEntries(Env& env, const std::string& dir) {
  std::vector<Entry> entries;
  if (!env.Exists(dir)) return entries;
  EW_ASSIGN(const auto names, env.ListDir(dir));
  for (const std::string& name : names) {
    if (auto entry = ParseName(name)) entries.push_back(std::move(*entry));
  }
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return a.step != b.step ? a.step > b.step : a.kind < b.kind;
  });
  return entries;
}

Status CheckContents(Env& env, const std::string& path, const CheckpointFile& expected) {
  EW_ASSIGN(const auto file, env.NewReadableFile(path));
  std::vector<std::byte> buffer(
      static_cast<size_t>(std::clamp<int64_t>(expected.bytes, 1, int64_t{1} << 20)));
  ContentHash hash;
  int64_t total = 0;
  for (;;) {
    EW_ASSIGN(const size_t n, file->Read(buffer));
    if (n == 0) break;
    total += static_cast<int64_t>(n);
    hash.Update(std::span(buffer).first(n));
  }
  if (total != expected.bytes || hash.Hex() != expected.xxh3) {
    return BadInput(fmt::format("{} is damaged: its checksum differs from the manifest's", path));
  }
  return Status::Ok();
}

Result<CheckpointInfo> ReadEntry(Env& env, const std::string& dir, const Entry& entry,
                                 CheckpointVerify verify) {
  const std::string path = JoinPath(dir, entry.name);
  if (entry.kind == Entry::Kind::kTemporary) {
    return BadInput(path + " was never finished (its run crashed or was killed)");
  }
  EW_ASSIGN(CheckpointInfo info, ReadCheckpoint(env, path, verify));
  if (info.step != entry.step) {
    return BadInput(fmt::format("{} holds step {}: it was renamed by hand", path, info.step));
  }
  return info;
}

Result<CheckpointScan> Scan(Env& env, const std::string& dir, CheckpointVerify verify,
                            bool newest_only) {
  EW_ASSIGN(const auto entries, ListEntries(env, dir));
  CheckpointScan scan;
  for (const Entry& entry : entries) {
    if (!scan.valid.empty() && scan.valid.back().step == entry.step) continue;
    auto info = ReadEntry(env, dir, entry, verify);
    if (info.ok()) {
      scan.valid.push_back(std::move(*info));
      if (newest_only) break;
    } else {
      scan.skipped.push_back({JoinPath(dir, entry.name), info.status().message()});
    }
  }
  return scan;
}

// Under a temporary name first, so that a crash half-way leaves nothing that looks complete.
Status RemoveCheckpoint(Env& env, const std::string& path) {
  const std::string temp = fmt::format("{}.tmp-{}", path, ::getpid());
  if (env.Exists(temp)) EW_RETURN_IF_ERROR(env.RemoveAll(temp));
  EW_RETURN_IF_ERROR(env.Rename(path, temp));
  return env.RemoveAll(temp);
}

}  // namespace

Result<CheckpointInfo> ReadCheckpoint(Env& env, const std::string& path, CheckpointVerify verify) {
  const std::string manifest = JoinPath(path, kManifestName);
  if (!env.Exists(manifest)) {
    return BadInput(path + " has no " + std::string(kManifestName) + ": it is not complete");
  }
  EW_ASSIGN(const std::string text, env.ReadFile(manifest, kMaxManifestBytes));
  EW_ASSIGN(CheckpointInfo info, ParseManifest(text).WithContext(manifest));
  info.path = path;
  for (const auto& [name, expected] : info.files) {
    const std::string file = JoinPath(path, name);
    const Result<int64_t> bytes = env.FileSize(file);
    if (!bytes.ok()) return BadInput(fmt::format("{} is missing", file));
    if (*bytes != expected.bytes) {
      return BadInput(
          fmt::format("{} has {} bytes, the manifest says {}", file, *bytes, expected.bytes));
    }
    if (verify == CheckpointVerify::kChecksums) {
      EW_RETURN_IF_ERROR(CheckContents(env, file, expected));
    }
  }
  return info;
}

Result<CheckpointScan> FindCheckpoints(Env& env, const std::string& dir, CheckpointVerify verify) {
  return Scan(env, dir, verify, false);
}

Result<CheckpointScan> FindNewestCheckpoint(Env& env, const std::string& dir) {
  return Scan(env, dir, CheckpointVerify::kChecksums, true);
}

Status CleanCheckpoints(Env& env, const std::string& dir) {
  EW_ASSIGN(const auto entries, ListEntries(env, dir));
  bool changed = false;
  for (const Entry& entry : entries) {
    const std::string path = JoinPath(dir, entry.name);
    const std::string base = JoinPath(dir, entry.base);
    if (entry.kind == Entry::Kind::kTemporary) {
      EW_RETURN_IF_ERROR(env.RemoveAll(path));
      changed = true;
    } else if (entry.kind == Entry::Kind::kReplaced) {
      if (ReadCheckpoint(env, base).ok()) {
        EW_RETURN_IF_ERROR(env.RemoveAll(path));
      } else if (ReadCheckpoint(env, path).ok()) {
        if (env.Exists(base)) EW_RETURN_IF_ERROR(RemoveCheckpoint(env, base));
        EW_RETURN_IF_ERROR(env.Rename(path, base));
      } else {
        continue;  // neither is any good: left for the user to look at
      }
      changed = true;
    }
  }
  return changed ? env.SyncDir(dir) : Status::Ok();
}

Result<std::vector<std::string>> PruneCheckpoints(Env& env, const std::string& dir, int64_t limit,
                                                  const std::vector<std::string>& keep) {
  if (limit < 1) return InvalidArgument("at least one checkpoint must be kept");
  EW_ASSIGN(CheckpointScan scan, FindCheckpoints(env, dir, CheckpointVerify::kSizes));
  // Sizes alone do not make the newest one good enough to delete others for.
  while (!scan.valid.empty() && !ReadCheckpoint(env, scan.valid.front().path).ok()) {
    scan.valid.erase(scan.valid.begin());
  }
  const auto is_kept = [&](const std::string& path) {
    return std::find(keep.begin(), keep.end(), BaseName(path)) != keep.end();
  };
  int64_t left = limit;
  for (const CheckpointInfo& info : scan.valid) left -= is_kept(info.path) ? 1 : 0;
  std::vector<std::string> removed;
  for (size_t i = 0; i < scan.valid.size(); ++i) {
    const std::string& path = scan.valid[i].path;
    if (is_kept(path)) continue;
    if (i == 0 || left > 0) {
      --left;
      continue;
    }
    EW_RETURN_IF_ERROR(RemoveCheckpoint(env, path));
    removed.push_back(path);
  }
  return removed;
}

}  // namespace edgewise::formats
