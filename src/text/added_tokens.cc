#include "text/added_tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "text/unicode.h"

namespace edgewise::text {
namespace {

bool EndsInWord(std::string_view text) {
  size_t start = 0;
  return !text.empty() && IsWordChar(CharBefore(text, text.size(), &start));
}

bool StartsWithWord(std::string_view text) {
  size_t pos = 0;
  return !text.empty() && IsWordChar(NextChar(text, &pos));
}

// Start of the white space at the end of text[0, end), not before `limit`.
uint32_t SpaceStart(std::string_view text, uint32_t end, uint32_t limit) {
  while (end > limit) {
    size_t start = 0;
    if (!IsWhitespace(CharBefore(text, end, &start))) break;
    end = static_cast<uint32_t>(start);
  }
  return std::max(end, limit);
}

uint32_t SpaceEnd(std::string_view text, uint32_t begin) {
  for (size_t pos = begin; pos < text.size();) {
    if (!IsWhitespace(NextChar(text, &pos))) break;
    begin = static_cast<uint32_t>(pos);
  }
  return begin;
}

}  // namespace

Result<AddedTokenMatcher> AddedTokenMatcher::Build(std::vector<AddedToken> tokens) {
  AddedTokenMatcher out;
  out.tokens_ = std::move(tokens);
  out.nodes_.emplace_back();
  out.root_.assign(256, 0);
  for (size_t i = 0; i < out.tokens_.size(); ++i) {
    const std::string& pattern = out.tokens_[i].pattern;
    if (pattern.empty()) continue;
    if (pattern.size() > kMaxAddedTokenBytes) {
      return Unsupported(fmt::format("added token {} is {} bytes long: the limit is {}",
                                     out.tokens_[i].id, pattern.size(), kMaxAddedTokenBytes));
    }
    uint32_t node = 0;
    for (char c : pattern) {
      const auto byte = static_cast<unsigned char>(c);
      uint32_t& child = node == 0 ? out.root_[byte] : out.children_[uint64_t{node} << 8 | byte];
      if (child == 0) {
        child = static_cast<uint32_t>(out.nodes_.size());
        out.nodes_.emplace_back();
      }
      node = child;
    }
    if (out.nodes_[node].token < 0) out.nodes_[node].token = static_cast<int32_t>(i);
  }
  return out;
}

int32_t AddedTokenMatcher::LongestAt(std::string_view text, size_t pos, size_t* length) const {
  uint32_t node = root_[static_cast<unsigned char>(text[pos])];
  int32_t best = -1;
  for (size_t i = pos + 1; node != 0; ++i) {
    if (nodes_[node].token >= 0) {
      best = nodes_[node].token;
      *length = i - pos;
    }
    if (i >= text.size()) break;
    const auto it = children_.find(uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
    node = it == children_.end() ? 0 : it->second;
  }
  return best;
}

void AddedTokenMatcher::Split(std::string_view text, bool skip_control,
                              std::span<const Range> literal, std::vector<Segment>* out) const {
  out->clear();
  const auto size = static_cast<uint32_t>(text.size());
  uint32_t done = 0;
  Range space;  // the run of white space that a token took last
  size_t next_literal = 0;
  for (size_t pos = 0; pos < text.size() && !tokens_.empty();) {
    size_t length = 0;
    int32_t found = LongestAt(text, pos, &length);
    while (next_literal < literal.size() && literal[next_literal].end <= pos) ++next_literal;
    if (found >= 0 && tokens_[found].control && next_literal < literal.size() &&
        literal[next_literal].begin < pos + length) {
      // A shorter token may still end before the range begins.
      const size_t limit = literal[next_literal].begin;
      found = limit > pos ? LongestAt(text.substr(0, limit), pos, &length) : -1;
    }
    if (found < 0) {
      ++pos;
      continue;
    }
    auto begin = static_cast<uint32_t>(pos);
    auto end = static_cast<uint32_t>(pos + length);
    pos = end;
    const AddedToken& token = tokens_[found];
    if (skip_control && token.control) continue;
    if (token.single_word &&
        (EndsInWord(text.substr(0, begin)) || StartsWithWord(text.substr(end)))) {
      continue;
    }
    // White space that the token before has already taken stays with it.
    if (token.lstrip) begin = std::max(SpaceStart(text, begin, std::min(begin, done)), done);
    if (token.rstrip) {
      // Tokens of white space can start anywhere in one run of it: scan it once.
      if (end < space.begin || end >= space.end) space = {end, SpaceEnd(text, end)};
      end = std::max(end, space.end);
    }
    // White space can be a token itself, and gone already; the library crashes here.
    if (begin >= end) continue;
    if (done < begin) out->push_back({{done, begin}, -1});
    out->push_back({{begin, end}, token.id});
    done = end;
  }
  if (done != size) out->push_back({{done, size}, -1});
}

}  // namespace edgewise::text
