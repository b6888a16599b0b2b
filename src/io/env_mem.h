// A file system in memory that forgets what was not synced, for tests of crashes and full disks.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "io/env.h"

namespace edgewise {

// Paths are split at '/'; "/" exists. Thread-safe. Contents are durable after WritableFile::Sync,
// names (creation, removal, renaming) after SyncDir of the directory that holds them: the weakest
// promise that POSIX file systems make.
class MemEnv : public Env {
 public:
  MemEnv();
  ~MemEnv() override;

  // What a power cut leaves. kLoseUnsynced keeps only what is durable. kArbitrary keeps, by the
  // random numbers of `seed`, any prefix of unsynced contents and any subset of the directories'
  // unsynced changes, as a disk that reorders writes may. Open files must not be used afterwards.
  enum class CrashMode { kLoseUnsynced, kArbitrary };
  void Crash(CrashMode mode, uint64_t seed = 0);

  // Bytes that files may hold together; writing beyond it fails after what fits was written.
  void SetCapacity(int64_t bytes);
  int64_t UsedBytes() const;

  Result<std::unique_ptr<WritableFile>> NewWritableFile(const std::string& path) override;
  Result<std::unique_ptr<WritableFile>> NewAppendableFile(const std::string& path) override;
  Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status SyncDir(const std::string& path) override;
  Status CreateDirs(const std::string& path) override;
  Status RemoveAll(const std::string& path) override;
  Status Truncate(const std::string& path, int64_t size) override;
  Result<std::vector<std::string>> ListDir(const std::string& path) override;
  Result<int64_t> FileSize(const std::string& path) override;
  bool Exists(const std::string& path) override;
  bool IsDirectory(const std::string& path) override;
  Result<int64_t> FreeBytes(const std::string& path) override;

 private:
  struct Node;
  class File;
  using NodePtr = std::shared_ptr<Node>;

  NodePtr Find(const std::string& path) const;
  // The directory that holds (or would hold) the last name of the path.
  Result<NodePtr> Parent(const std::string& path, std::string& name) const;
  Result<std::unique_ptr<WritableFile>> Open(const std::string& path, bool truncate);
  static int64_t Bytes(const Node& node);

  mutable std::mutex mutex_;
  NodePtr root_;
  int64_t capacity_;
};

}  // namespace edgewise
