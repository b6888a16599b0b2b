#include <fmt/format.h>
#include <unistd.h>

#include "base/checked.h"
#include "formats/checkpoint.h"
#include "formats/checkpoint_manifest.h"
#include "formats/printable.h"

namespace edgewise::formats {
namespace {

Status SaveFailed(const Status& status) {
  return {StatusCode::kSaveFailed,
          "the checkpoint was not saved (earlier ones are untouched): " + status.message()};
}

// Passes bytes on and takes their number and checksum.
class HashingFile : public WritableFile {
 public:
  explicit HashingFile(WritableFile& file) : file_(file) {}

  Status Append(std::span<const std::byte> bytes) override {
    hash_.Update(bytes);
    count_ += static_cast<int64_t>(bytes.size());
    const Status status = file_.Append(bytes);
    return status.ok() ? status : SaveFailed(status);
  }
  // The container syncs and closes when the content is complete.
  Status Sync() override { return Status::Ok(); }
  Status Close() override { return Status::Ok(); }

  CheckpointFile Summary() const { return {count_, hash_.Hex()}; }

 private:
  WritableFile& file_;
  ContentHash hash_;
  int64_t count_ = 0;
};

}  // namespace

std::string CheckpointName(int64_t step) { return fmt::format("checkpoint-{:06}", step); }

CheckpointWriter::CheckpointWriter(Env& env, std::string dir, int64_t step)
    : env_(env), dir_(std::move(dir)) {
  info_.step = step;
  info_.path = JoinPath(dir_, CheckpointName(step));
  temp_ = fmt::format("{}.tmp-{}", info_.path, ::getpid());
}

Result<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Begin(Env& env, const std::string& dir,
                                                                  int64_t step,
                                                                  int64_t expected_bytes) {
  if (step < 0) return InvalidArgument(fmt::format("a checkpoint of step {}", step));
  if (const Status status = CreateDirsSynced(env, dir); !status.ok()) return SaveFailed(status);
  if (expected_bytes > 0) {
    // A file system that cannot tell its free space is no reason not to try.
    const Result<int64_t> free_bytes = env.FreeBytes(dir);
    const int64_t reserve = expected_bytes / 5;
    if (free_bytes.ok() && *free_bytes - reserve < expected_bytes) {
      return SaveFailed(IoError(fmt::format(
          "{} has {} bytes free, and a checkpoint needs {} and a reserve of {}; free some space or "
          "lower the number of checkpoints kept",
          dir, *free_bytes, expected_bytes, reserve)));
    }
  }
  std::unique_ptr<CheckpointWriter> writer(new CheckpointWriter(env, dir, step));
  if (env.Exists(writer->temp_)) {
    if (const Status status = env.RemoveAll(writer->temp_); !status.ok()) return SaveFailed(status);
  }
  if (const Status status = env.CreateDirs(writer->temp_); !status.ok()) return SaveFailed(status);
  return writer;
}

CheckpointWriter::~CheckpointWriter() {
  if (!committed_) (void)env_.RemoveAll(temp_);
}

Status CheckpointWriter::AddFile(const std::string& name, const WriteFn& write) {
  if (!IsCheckpointFileName(name) || name == kManifestName || info_.files.count(name) != 0) {
    failed_ = true;
    return InvalidArgument(fmt::format(
        "{} cannot be added to a checkpoint: not a new plain file name", Printable(name)));
  }
  const auto add = [&]() -> Status {
    auto file = env_.NewWritableFile(JoinPath(temp_, name));
    if (!file.ok()) return SaveFailed(file.status());
    HashingFile hashing(**file);
    EW_RETURN_IF_ERROR(write(hashing));
    // A failed fsync means that the data are lost: the whole checkpoint is given up, not retried.
    if (const Status status = (*file)->Sync(); !status.ok()) return SaveFailed(status);
    if (const Status status = (*file)->Close(); !status.ok()) return SaveFailed(status);
    info_.files.emplace(name, hashing.Summary());
    return Status::Ok();
  };
  Status status = add();
  if (!status.ok()) failed_ = true;
  return status;
}

Status CheckpointWriter::AddFile(const std::string& name, std::string_view contents) {
  return AddFile(name, [contents](WritableFile& file) {
    return file.Append(std::as_bytes(std::span(contents.data(), contents.size())));
  });
}

Result<CheckpointInfo> CheckpointWriter::Commit(
    const std::map<std::string, std::string>& metadata) {
  if (failed_ || committed_) {
    return SaveFailed(
        Internal(committed_ ? "it was committed before" : "one of its files could not be written"));
  }
  info_.metadata = metadata;
  if (const Status status = WriteManifest(); !status.ok()) return SaveFailed(status);
  if (const Status status = Publish(); !status.ok()) return SaveFailed(status);
  return info_;
}

Status CheckpointWriter::WriteManifest() {
  EW_ASSIGN(const auto file, env_.NewWritableFile(JoinPath(temp_, std::string(kManifestName))));
  const std::string manifest = FormatManifest(info_);
  EW_RETURN_IF_ERROR(file->Append(std::as_bytes(std::span(manifest))));
  EW_RETURN_IF_ERROR(file->Sync());
  EW_RETURN_IF_ERROR(file->Close());
  return env_.SyncDir(temp_);
}

Status CheckpointWriter::Publish() {
  // A directory cannot be renamed over another: one of the same step steps aside first.
  const std::string old = fmt::format("{}.old-{}", info_.path, ::getpid());
  const bool replaces = env_.Exists(info_.path);
  if (replaces) {
    if (env_.Exists(old)) EW_RETURN_IF_ERROR(env_.RemoveAll(old));
    EW_RETURN_IF_ERROR(env_.Rename(info_.path, old));
  }
  if (const Status status = env_.Rename(temp_, info_.path); !status.ok()) {
    if (replaces) (void)env_.Rename(old, info_.path);
    return status;
  }
  committed_ = true;
  EW_RETURN_IF_ERROR(env_.SyncDir(dir_));
  if (replaces) (void)env_.RemoveAll(old);
  return Status::Ok();
}

}  // namespace edgewise::formats
