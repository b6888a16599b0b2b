#include "tune/fingerprint.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "io/env.h"

namespace edgewise::tune {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

struct FreeState {
  void operator()(XXH3_state_t* s) const { XXH3_freeState(s); }
};
using State = std::unique_ptr<XXH3_state_t, FreeState>;

std::string Digest(const XXH128_hash_t hash) {
  return fmt::format("xxh3:{:016x}{:016x}", static_cast<uint64_t>(hash.high64),
                     static_cast<uint64_t>(hash.low64));
}

Status AddFile(XXH3_state_t* state, const std::string& path, std::vector<char>& buffer) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return IoError(fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  uint64_t size = 0;
  Status status;
  for (;;) {
    const ssize_t n = ::read(fd, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) status = IoError(fmt::format("cannot read {}: {}", path, std::strerror(errno)));
    if (n <= 0) break;
    XXH3_128bits_update(state, buffer.data(), static_cast<size_t>(n));
    size += static_cast<uint64_t>(n);
  }
  ::close(fd);
  // The size ends a file, so that moving bytes from one to the next changes the digest.
  XXH3_128bits_update(state, &size, sizeof size);
  return status;
}

}  // namespace

std::string FingerprintText(std::string_view text) {
  return Digest(XXH3_128bits(text.data(), text.size()));
}

Result<std::string> FingerprintModel(const std::string& path) {
  Env& env = PosixEnv();
  std::vector<std::string> names;
  const bool directory = env.IsDirectory(path);
  if (directory) {
    EW_ASSIGN(const std::vector<std::string> all, env.ListDir(path));
    for (const std::string& name : all) {
      if (name == "config.json" || name.ends_with(".safetensors")) names.push_back(name);
    }
    if (names.empty()) {
      return NotFound(fmt::format("{} holds neither config.json nor .safetensors files", path));
    }
  } else {
    names.push_back(BaseName(path));
  }
  State state(XXH3_createState());
  if (state == nullptr) return OutOfMemory("no memory for a hash");
  XXH3_128bits_reset(state.get());
  std::vector<char> buffer(kChunk);
  for (const std::string& name : names) {
    if (directory) XXH3_128bits_update(state.get(), name.c_str(), name.size() + 1);
    EW_RETURN_IF_ERROR(AddFile(state.get(), directory ? JoinPath(path, name) : path, buffer));
  }
  return Digest(XXH3_128bits_digest(state.get()));
}

}  // namespace edgewise::tune
