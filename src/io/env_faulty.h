// An Env that fails on command: "fail the k-th operation" makes loops over every point of failure
// cheap to write.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "io/env.h"

namespace edgewise {

// Passes everything on to another Env and counts the operations that change something (creating,
// appending, syncing, closing, renaming, removing, truncating) and, when asked to, those that read.
class FaultyEnv : public Env {
 public:
  explicit FaultyEnv(Env& base) : base_(base) {}

  struct Plan {
    int64_t fail_at = -1;      // number of the first operation that fails, from 0; negative: none
    bool persistent = false;   // all later ones fail too, as on a full or dead disk
    bool torn_writes = false;  // a failing append writes the first half of its bytes
    bool count_reads = false;  // reading operations count and fail as well
    std::string message = "No space left on device";
  };
  // Starts counting from 0 again.
  void SetPlan(Plan plan);
  int64_t operations() const;  // since the plan was set
  int64_t failures() const;

  Result<std::unique_ptr<WritableFile>> NewWritableFile(const std::string& path) override;
  Result<std::unique_ptr<WritableFile>> NewAppendableFile(const std::string& path) override;
  Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) override;
  Result<std::unique_ptr<ReadableFile>> NewReadableFile(const std::string& path) override;
  Result<std::unique_ptr<ScratchFile>> NewScratchFile(const std::string& directory,
                                                      int64_t bytes) override;
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
  class File;
  class Scratch;
  // Counts one operation; the error it must end in, if any.
  Status Step(std::string_view what, const std::string& path);
  Status ReadStep(std::string_view what, const std::string& path);
  bool torn_writes() const;

  Env& base_;
  mutable std::mutex mutex_;
  Plan plan_;
  int64_t operations_ = 0;
  int64_t failures_ = 0;
};

}  // namespace edgewise
