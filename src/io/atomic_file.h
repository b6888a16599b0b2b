// A file that appears under its name only when it is complete.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "io/env.h"

namespace edgewise {

// Writes to a temporary file in the directory of `path`; Commit syncs it, renames it over `path`
// and syncs the directory. Without Commit the temporary file is removed and `path` is untouched.
class AtomicFile {
 public:
  static Result<std::unique_ptr<AtomicFile>> Create(Env& env, const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  WritableFile& file() { return *file_; }
  Status Commit();

 private:
  AtomicFile(Env& env, std::string path, std::string temp)
      : env_(env), path_(std::move(path)), temp_(std::move(temp)) {}

  Env& env_;
  std::string path_;
  std::string temp_;
  std::unique_ptr<WritableFile> file_;
  bool committed_ = false;
};

}  // namespace edgewise
