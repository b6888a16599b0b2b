// Checkpoints that survive crashes: a directory of files with a checksummed manifest, made under a
// temporary name and renamed when complete.
//
//   DIR/checkpoint-000120/            complete: holds manifest.json, written last
//   DIR/checkpoint-000120.tmp-<pid>/  being written, or left by a crash
//   DIR/checkpoint-000120.old-<pid>/  replaced by a newer one of the same step; left by a crash
//   only
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "io/env.h"

namespace edgewise::formats {

struct CheckpointFile {
  int64_t bytes = 0;
  std::string xxh3;  // 16 hex digits of XXH3-64
};

struct CheckpointInfo {
  std::string path;
  int64_t step = 0;
  std::map<std::string, CheckpointFile> files;
  std::map<std::string, std::string> metadata;  // as given to Commit
};

// "checkpoint-000120"; steps of more than six digits use as many as they need.
std::string CheckpointName(int64_t step);

class CheckpointWriter {
 public:
  // Creates DIR when absent and the temporary directory in it. `expected_bytes` (0: unknown) is
  // checked against the free space with a reserve of a fifth. Error kSaveFailed when it does not
  // fit; nothing that exists is touched.
  static Result<std::unique_ptr<CheckpointWriter>> Begin(Env& env, const std::string& dir,
                                                         int64_t step, int64_t expected_bytes);
  // Removes the temporary directory unless committed.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  // `name` is a plain file name. `write` appends to the file it is given; size and checksum are
  // taken on the way. After an error the checkpoint cannot be committed.
  using WriteFn = std::function<Status(WritableFile&)>;
  Status AddFile(const std::string& name, const WriteFn& write);
  Status AddFile(const std::string& name, std::string_view contents);

  // Manifest, fsyncs, rename, fsync of the parent. On success the checkpoint is durable and valid.
  // Every error has code kSaveFailed (or the code of a WriteFn's own error).
  Result<CheckpointInfo> Commit(const std::map<std::string, std::string>& metadata = {});

 private:
  CheckpointWriter(Env& env, std::string dir, int64_t step);
  Status WriteManifest();
  Status Publish();

  Env& env_;
  std::string dir_;
  std::string temp_;
  CheckpointInfo info_;
  bool failed_ = false;
  bool committed_ = false;
};

enum class CheckpointVerify {
  kSizes,      // manifest and file sizes
  kChecksums,  // and the contents
};

// Why a checkpoint is no good is the error.
Result<CheckpointInfo> ReadCheckpoint(Env& env, const std::string& path,
                                      CheckpointVerify verify = CheckpointVerify::kChecksums);

struct SkippedCheckpoint {
  std::string path;
  std::string reason;
};
struct CheckpointScan {
  std::vector<CheckpointInfo> valid;  // newest (highest step) first
  std::vector<SkippedCheckpoint> skipped;
};

// All checkpoints of DIR. A DIR that does not exist has none.
Result<CheckpointScan> FindCheckpoints(Env& env, const std::string& dir,
                                       CheckpointVerify verify = CheckpointVerify::kChecksums);
// The newest valid one only, which reads no more than it must; `skipped` are the newer ones that
// are no good. `valid` has one entry or none.
Result<CheckpointScan> FindNewestCheckpoint(Env& env, const std::string& dir);

// What a crash left: temporary directories are removed, and a checkpoint whose replacement was cut
// short gets its name back. Call it before a run writes to DIR, never while another one does.
Status CleanCheckpoints(Env& env, const std::string& dir);

// Removes the oldest valid checkpoints beyond `limit` (>= 1), but never one whose directory name is
// in `keep` nor the newest; those count towards the limit. Invalid ones are left for the user.
// Returns the paths removed.
Result<std::vector<std::string>> PruneCheckpoints(Env& env, const std::string& dir, int64_t limit,
                                                  const std::vector<std::string>& keep);

}  // namespace edgewise::formats
