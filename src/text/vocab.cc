#include "text/vocab.h"

#include <fmt/format.h>

namespace edgewise::text {

Status Vocab::Store(std::string_view piece, int64_t id) {
  if (id < 0 || id >= kMaxVocab) {
    return BadInput(
        fmt::format("token '{}' has id {}: ids must be below {}", piece, id, kMaxVocab));
  }
  if (static_cast<size_t>(id) >= pieces_.size()) pieces_.resize(id + 1, nullptr);
  if (pieces_[id] != nullptr) {
    return BadInput(
        fmt::format("tokens '{}' and '{}' have the same id {}", *pieces_[id], piece, id));
  }
  pieces_[id] = &storage_.emplace_back(piece);
  return Status::Ok();
}

Status Vocab::Add(std::string_view piece, int64_t id) {
  if (ids_.contains(piece)) {
    return BadInput(fmt::format("token '{}' is in the vocabulary twice", piece));
  }
  return AddSynonym(piece, id);
}

Status Vocab::AddSynonym(std::string_view piece, int64_t id) {
  EW_RETURN_IF_ERROR(Store(piece, id));
  ids_.insert_or_assign(storage_.back(), static_cast<int32_t>(id));
  return Status::Ok();
}

}  // namespace edgewise::text
