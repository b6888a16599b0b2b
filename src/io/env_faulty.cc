#include "io/env_faulty.h"

#include <fmt/format.h>

namespace edgewise {

class FaultyEnv::File : public WritableFile {
 public:
  File(FaultyEnv& env, std::unique_ptr<WritableFile> base, std::string path)
      : env_(env), base_(std::move(base)), path_(std::move(path)) {}

  Status Append(std::span<const std::byte> bytes) override {
    const Status fault = env_.Step("write", path_);
    if (fault.ok()) return base_->Append(bytes);
    if (env_.torn_writes()) (void)base_->Append(bytes.first(bytes.size() / 2));
    return fault;
  }
  Status Sync() override {
    EW_RETURN_IF_ERROR(env_.Step("sync", path_));
    return base_->Sync();
  }
  Status Close() override {
    EW_RETURN_IF_ERROR(env_.Step("close", path_));
    return base_->Close();
  }

 private:
  FaultyEnv& env_;
  std::unique_ptr<WritableFile> base_;
  std::string path_;
};

class FaultyEnv::Scratch : public ScratchFile {
 public:
  Scratch(FaultyEnv& env, std::unique_ptr<ScratchFile> base, std::string path)
      : env_(env), base_(std::move(base)), path_(std::move(path)) {}

  Status Write(int64_t offset, std::span<const std::byte> bytes) override {
    EW_RETURN_IF_ERROR(env_.Step("write", path_));
    return base_->Write(offset, bytes);
  }
  Status Read(int64_t offset, std::span<std::byte> bytes) override {
    EW_RETURN_IF_ERROR(env_.ReadStep("read", path_));
    return base_->Read(offset, bytes);
  }

 private:
  FaultyEnv& env_;
  std::unique_ptr<ScratchFile> base_;
  std::string path_;
};

void FaultyEnv::SetPlan(Plan plan) {
  const std::lock_guard lock(mutex_);
  plan_ = std::move(plan);
  operations_ = 0;
  failures_ = 0;
}

int64_t FaultyEnv::operations() const {
  const std::lock_guard lock(mutex_);
  return operations_;
}

int64_t FaultyEnv::failures() const {
  const std::lock_guard lock(mutex_);
  return failures_;
}

bool FaultyEnv::torn_writes() const {
  const std::lock_guard lock(mutex_);
  return plan_.torn_writes;
}

Status FaultyEnv::Step(std::string_view what, const std::string& path) {
  const std::lock_guard lock(mutex_);
  const int64_t number = operations_++;
  const bool fails =
      plan_.fail_at >= 0 && (plan_.persistent ? number >= plan_.fail_at : number == plan_.fail_at);
  if (!fails) return Status::Ok();
  ++failures_;
  return IoError(fmt::format("cannot {} {}: {}", what, path, plan_.message));
}

Status FaultyEnv::ReadStep(std::string_view what, const std::string& path) {
  {
    const std::lock_guard lock(mutex_);
    if (!plan_.count_reads) return Status::Ok();
  }
  return Step(what, path);
}

Result<std::unique_ptr<WritableFile>> FaultyEnv::NewWritableFile(const std::string& path) {
  EW_RETURN_IF_ERROR(Step("create", path));
  EW_ASSIGN(auto file, base_.NewWritableFile(path));
  return std::unique_ptr<WritableFile>(new File(*this, std::move(file), path));
}

Result<std::unique_ptr<WritableFile>> FaultyEnv::NewAppendableFile(const std::string& path) {
  EW_RETURN_IF_ERROR(Step("open", path));
  EW_ASSIGN(auto file, base_.NewAppendableFile(path));
  return std::unique_ptr<WritableFile>(new File(*this, std::move(file), path));
}

Result<std::string> FaultyEnv::ReadFile(const std::string& path, int64_t max_bytes) {
  EW_RETURN_IF_ERROR(ReadStep("read", path));
  return base_.ReadFile(path, max_bytes);
}

Result<std::unique_ptr<ReadableFile>> FaultyEnv::NewReadableFile(const std::string& path) {
  EW_RETURN_IF_ERROR(ReadStep("open", path));
  return base_.NewReadableFile(path);
}

Result<std::unique_ptr<ScratchFile>> FaultyEnv::NewScratchFile(const std::string& directory,
                                                               int64_t bytes) {
  EW_RETURN_IF_ERROR(Step("create", directory));
  EW_ASSIGN(auto file, base_.NewScratchFile(directory, bytes));
  return std::unique_ptr<ScratchFile>(new Scratch(*this, std::move(file), directory));
}

Status FaultyEnv::Rename(const std::string& from, const std::string& to) {
  EW_RETURN_IF_ERROR(Step("rename", from));
  return base_.Rename(from, to);
}

Status FaultyEnv::SyncDir(const std::string& path) {
  EW_RETURN_IF_ERROR(Step("sync directory", path));
  return base_.SyncDir(path);
}

Status FaultyEnv::CreateDirs(const std::string& path) {
  EW_RETURN_IF_ERROR(Step("create directory", path));
  return base_.CreateDirs(path);
}

Status FaultyEnv::RemoveAll(const std::string& path) {
  EW_RETURN_IF_ERROR(Step("remove", path));
  return base_.RemoveAll(path);
}

Status FaultyEnv::Truncate(const std::string& path, int64_t size) {
  EW_RETURN_IF_ERROR(Step("truncate", path));
  return base_.Truncate(path, size);
}

Result<std::vector<std::string>> FaultyEnv::ListDir(const std::string& path) {
  EW_RETURN_IF_ERROR(ReadStep("list", path));
  return base_.ListDir(path);
}

Result<int64_t> FaultyEnv::FileSize(const std::string& path) {
  EW_RETURN_IF_ERROR(ReadStep("stat", path));
  return base_.FileSize(path);
}

bool FaultyEnv::Exists(const std::string& path) { return base_.Exists(path); }
bool FaultyEnv::IsDirectory(const std::string& path) { return base_.IsDirectory(path); }

Result<int64_t> FaultyEnv::FreeBytes(const std::string& path) {
  EW_RETURN_IF_ERROR(ReadStep("stat file system of", path));
  return base_.FreeBytes(path);
}

}  // namespace edgewise
