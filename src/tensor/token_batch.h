// A stream of training tokens: the documents of one micro-batch laid end to end. There is no
// padding; what keeps the documents apart is in the arrays, so every consumer (attention, RoPE,
// loss) sees the same boundaries whether or not documents were packed together.
#pragma once

#include <cstdint>
#include <vector>

namespace edgewise {

// All four arrays have the same length T. Document d occupies the tokens t with equal first_key[t].
struct TokenBatch {
  std::vector<int32_t> ids;        // [T] token ids
  std::vector<int32_t> positions;  // [T] RoPE positions: restart at 0 at every document
  // [T] index in the stream where t's document starts: token t attends to first_key[t] .. t.
  std::vector<int32_t> first_key;
  // [T] id that the model has to predict after token t (ids[t + 1] of the same document), or
  // kNoTarget where nothing is learned. The last token of a document never has a target.
  std::vector<int32_t> targets;

  static constexpr int32_t kNoTarget = -1;

  int64_t size() const { return static_cast<int64_t>(ids.size()); }
};

}  // namespace edgewise
