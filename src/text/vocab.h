// Ids and spellings of tokens.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/status.h"

namespace edgewise::text {

// Far above every real vocabulary (Gemma has 262,144): a hostile id must not make us allocate.
inline constexpr int64_t kMaxVocab = int64_t{1} << 24;

// The vocabulary of a model; ids may have gaps. Not copyable: views point into it.
class Vocab {
 public:
  Vocab() = default;
  Vocab(Vocab&&) = default;
  Vocab& operator=(Vocab&&) = default;
  Vocab(const Vocab&) = delete;
  Vocab& operator=(const Vocab&) = delete;

  // Error: the piece or the id is taken, or the id is out of bounds.
  Status Add(std::string_view piece, int64_t id);
  // As Add, but the piece may be known: Find then gives the new id, and both ids have this piece.
  Status AddSynonym(std::string_view piece, int64_t id);

  std::optional<int32_t> Find(std::string_view piece) const {
    const auto it = ids_.find(piece);
    if (it == ids_.end()) return std::nullopt;
    return it->second;
  }
  // Nothing for ids that no piece has.
  std::optional<std::string_view> Piece(int32_t id) const {
    if (id < 0 || static_cast<size_t>(id) >= pieces_.size() || pieces_[id] == nullptr) {
      return std::nullopt;
    }
    return *pieces_[id];
  }
  int32_t id_limit() const { return static_cast<int32_t>(pieces_.size()); }  // largest id + 1
  size_t size() const { return storage_.size(); }

 private:
  Status Store(std::string_view piece, int64_t id);

  std::deque<std::string> storage_;  // stable addresses
  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<const std::string*> pieces_;
};

}  // namespace edgewise::text
