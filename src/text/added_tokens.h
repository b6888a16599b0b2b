// Tokens that are found in the text before anything else looks at it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "text/aligned_text.h"

namespace edgewise::text {

// Longer ones are refused: finding a token takes up to its length at every byte of the text.
inline constexpr size_t kMaxAddedTokenBytes = 1024;

struct AddedToken {
  int32_t id = 0;
  std::string content;  // as the file spells it
  // What is looked for and what decoding starts from: the normalized content if `normalized`.
  std::string pattern;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space behind it
  bool normalized = false;   // looked for in the normalized text
  bool special = false;
  bool control = false;
};

// A part of a text; `token` < 0: text that is still to be tokenized.
struct Segment {
  Range range;
  int32_t token = -1;
};

// Finds a set of added tokens: leftmost, longest.
class AddedTokenMatcher {
 public:
  // `tokens`: those of the set; an empty pattern is left out. Error: a pattern is too long.
  static Result<AddedTokenMatcher> Build(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  // Cuts `text` at the tokens. `skip_control`: control tokens stay text; so do those that touch
  // one of the ranges `literal` (ascending, disjoint).
  void Split(std::string_view text, bool skip_control, std::span<const Range> literal,
             std::vector<Segment>* out) const;

 private:
  struct Node {
    int32_t token = -1;  // index into tokens_ of the pattern that ends here
  };
  // Index of the longest token that starts at `pos` and its length.
  int32_t LongestAt(std::string_view text, size_t pos, size_t* length) const;

  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> root_;                       // child of the root by first byte; 0: none
  std::unordered_map<uint64_t, uint32_t> children_;  // node << 8 | byte
};

}  // namespace edgewise::text
