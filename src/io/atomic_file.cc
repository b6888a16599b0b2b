#include "io/atomic_file.h"

#include <fmt/format.h>
#include <unistd.h>

namespace edgewise {

Result<std::unique_ptr<AtomicFile>> AtomicFile::Create(Env& env, const std::string& path) {
  std::unique_ptr<AtomicFile> file(
      new AtomicFile(env, path, fmt::format("{}.tmp-{}", path, ::getpid())));
  EW_ASSIGN(file->file_, env.NewWritableFile(file->temp_));
  return file;
}

AtomicFile::~AtomicFile() {
  if (committed_) return;
  if (file_ != nullptr) (void)file_->Close();
  if (file_ != nullptr) (void)env_.RemoveAll(temp_);
}

Status AtomicFile::Commit() {
  EW_RETURN_IF_ERROR(file_->Sync());
  EW_RETURN_IF_ERROR(file_->Close());
  EW_RETURN_IF_ERROR(env_.Rename(temp_, path_));
  committed_ = true;  // from here on the new file is in place, whatever the directory sync says
  return env_.SyncDir(DirName(path_));
}

}  // namespace edgewise
