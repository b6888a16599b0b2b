// The operating system behind an interface, so that tests can put memory, short reads, full disks
// and torn writes in its place. Everything that the engine writes goes through an Env.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edgewise {

class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual Status Append(std::span<const std::byte> bytes) = 0;
  // Flushes to stable storage. After a failure the data must be considered lost: rewrite the file.
  virtual Status Sync() = 0;
  virtual Status Close() = 0;
};

class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  // Reads on from where the last read ended, up to buffer.size() bytes; 0 at the end of the file.
  virtual Result<size_t> Read(std::span<std::byte> buffer) = 0;
};

// A file without a name, for what memory has no room for meanwhile: it is gone when it is closed
// and when the process ends, however it ends.
class ScratchFile {
 public:
  // Offsets, lengths and addresses are multiples of this.
  static constexpr int64_t kAlignment = 4096;
  virtual ~ScratchFile() = default;
  // Any thread. Error (kIo): the disk is full or failing.
  virtual Status Write(int64_t offset, std::span<const std::byte> bytes) = 0;
  virtual Status Read(int64_t offset, std::span<std::byte> bytes) = 0;
};

class Env {
 public:
  virtual ~Env() = default;
  // In `directory`, which exists, with room for `bytes` bytes, which is taken at once where the
  // file system can. Past the page cache; where there is no such way, what passed is dropped from
  // it. Error: there is not that much room; kUnsupported (the default): this Env has no such files.
  virtual Result<std::unique_ptr<ScratchFile>> NewScratchFile(const std::string& directory,
                                                              int64_t bytes);
  // Creates or truncates.
  virtual Result<std::unique_ptr<WritableFile>> NewWritableFile(const std::string& path) = 0;
  // Opens for appending; creates when absent.
  virtual Result<std::unique_ptr<WritableFile>> NewAppendableFile(const std::string& path) = 0;
  virtual Result<std::string> ReadFile(const std::string& path, int64_t max_bytes) = 0;
  // For files that are too large to hold in memory. The default reads through ReadFile.
  virtual Result<std::unique_ptr<ReadableFile>> NewReadableFile(const std::string& path);
  virtual Status Rename(const std::string& from, const std::string& to) = 0;
  virtual Status SyncDir(const std::string& path) = 0;
  virtual Status CreateDirs(const std::string& path) = 0;
  virtual Status RemoveAll(const std::string& path) = 0;
  virtual Status Truncate(const std::string& path, int64_t size) = 0;
  virtual Result<std::vector<std::string>> ListDir(const std::string& path) = 0;  // names, sorted
  virtual Result<int64_t> FileSize(const std::string& path) = 0;
  virtual bool Exists(const std::string& path) = 0;
  virtual bool IsDirectory(const std::string& path) = 0;
  virtual Result<int64_t> FreeBytes(const std::string& path) = 0;
  // Whether what is written there takes memory (tmpfs, ramfs): no place for what memory has no room
  // for. false where that is not known.
  virtual bool IsInMemory(const std::string& path);
};

// The POSIX file system; stateless, lives for ever.
Env& PosixEnv();

// Writes `contents` so that a crash leaves either the old or the new file: temporary file in the
// same directory, fsync, rename, fsync of the directory.
Status WriteFileAtomic(Env& env, const std::string& path, std::string_view contents);

// Creates the directories that are missing and makes their names durable.
Status CreateDirsSynced(Env& env, const std::string& path);

std::string JoinPath(std::string_view a, std::string_view b);
std::string BaseName(std::string_view path);
std::string DirName(std::string_view path);

}  // namespace edgewise
