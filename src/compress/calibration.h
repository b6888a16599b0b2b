// Text to measure and compress on: windows of tokens, and the hidden states that they have between
// two layers, in memory or in a file.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "io/random_file.h"
#include "tensor/token_batch.h"

namespace edgewise::compress {

// `windows` windows of `length` tokens drawn from `ids` at random places (a function of the seed,
// sorted by place), every token with a target but the last of each. Fewer when the text is short.
// Error: less than one window of 8 tokens.
Result<std::vector<TokenBatch>> MakeWindows(std::span<const int32_t> ids, int64_t windows,
                                            int64_t length, uint64_t seed);

std::string HashWindows(const std::vector<TokenBatch>& windows);  // "xxh3:..."

// Hidden states [tokens, hidden] of every window.
class StateStore {
 public:
  // In memory when all states take at most `memory_bytes`, else in the file `path`, which is
  // removed in the end.
  static Result<std::unique_ptr<StateStore>> Create(const std::vector<TokenBatch>& windows,
                                                    int64_t hidden, int64_t memory_bytes,
                                                    const std::string& path);
  ~StateStore();
  StateStore(const StateStore&) = delete;
  StateStore& operator=(const StateStore&) = delete;

  Status Read(int64_t window, float* out) const;
  Status Write(int64_t window, const float* h);
  bool in_memory() const { return file_ == nullptr; }

 private:
  StateStore() = default;
  std::vector<int64_t> offset_;  // floats before each window; windows + 1
  FloatBuffer memory_;
  std::unique_ptr<RandomFile> file_;
};

}  // namespace edgewise::compress
