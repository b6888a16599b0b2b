#include "io/env.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace edgewise {
namespace {

class StringReadableFile : public ReadableFile {
 public:
  explicit StringReadableFile(std::string contents) : contents_(std::move(contents)) {}

  Result<size_t> Read(std::span<std::byte> buffer) override {
    const size_t n = std::min(buffer.size(), contents_.size() - position_);
    if (n != 0) std::memcpy(buffer.data(), contents_.data() + position_, n);
    position_ += n;
    return n;
  }

 private:
  std::string contents_;
  size_t position_ = 0;
};

}  // namespace

Result<std::unique_ptr<ReadableFile>> Env::NewReadableFile(const std::string& path) {
  EW_ASSIGN(std::string contents, ReadFile(path, std::numeric_limits<int64_t>::max()));
  return std::unique_ptr<ReadableFile>(new StringReadableFile(std::move(contents)));
}

bool Env::IsInMemory(const std::string&) { return false; }

Result<std::unique_ptr<ScratchFile>> Env::NewScratchFile(const std::string& directory, int64_t) {
  return Unsupported(directory + ": no temporary files here");
}

Status CreateDirsSynced(Env& env, const std::string& path) {
  std::vector<std::string> parents;  // of the directories that are missing, the innermost first
  for (std::string dir = path; !env.Exists(dir); dir = parents.back()) {
    parents.push_back(DirName(dir));
    if (parents.back() == dir) break;
  }
  EW_RETURN_IF_ERROR(env.CreateDirs(path));
  for (auto it = parents.rbegin(); it != parents.rend(); ++it) {
    EW_RETURN_IF_ERROR(env.SyncDir(*it));
  }
  return Status::Ok();
}

}  // namespace edgewise
