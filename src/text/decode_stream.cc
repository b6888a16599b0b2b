#include <algorithm>
#include <utility>

#include "text/tokenizer.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

// Every step decodes all ids that are held; after so many that show nothing, what there is is shown
// as it is, so that a model that babbles bytes costs no more than this per step.
constexpr size_t kMaxHeldIds = 1024;

bool EndsIncomplete(std::string_view text) {
  return text.size() >= kReplacementUtf8.size() &&
         text.substr(text.size() - kReplacementUtf8.size()) == kReplacementUtf8;
}

size_t CommonPrefix(std::string_view a, std::string_view b) {
  const size_t limit = std::min(a.size(), b.size());
  size_t n = 0;
  while (n < limit && a[n] == b[n]) ++n;
  while (n > 0 && n < a.size() && IsContinuationByte(a[n])) --n;
  return n;
}

}  // namespace

std::optional<std::string> DecodeStream::Step(int32_t id) {
  if (prefix_.empty() && !ids_.empty()) {
    std::string shown = tokenizer_.Decode(ids_, skip_special_tokens_);
    if (!EndsIncomplete(shown)) {
      prefix_ = std::move(shown);
      prefix_index_ = ids_.size();
    }
  }
  ids_.push_back(id);
  const std::string text = tokenizer_.Decode(ids_, skip_special_tokens_);
  const bool full = ids_.size() - prefix_index_ > kMaxHeldIds;
  if (text.size() <= prefix_.size() || (EndsIncomplete(text) && !full)) {
    if (full && text.size() <= prefix_.size()) ids_.resize(prefix_index_);
    return std::nullopt;
  }
  std::string piece = text.substr(CommonPrefix(text, prefix_));
  // Keep the ids of this piece: decoders treat the first token of a text differently.
  const size_t new_index = ids_.size() - prefix_index_;
  ids_.erase(ids_.begin(), ids_.begin() + static_cast<ptrdiff_t>(prefix_index_));
  prefix_ = tokenizer_.Decode(ids_, skip_special_tokens_);
  prefix_index_ = new_index;
  if (piece.empty()) return std::nullopt;
  return piece;
}

std::string DecodeStream::Finish() {
  const std::string text = tokenizer_.Decode(ids_, skip_special_tokens_);
  std::string rest = text.substr(CommonPrefix(text, prefix_));
  ids_.clear();
  prefix_.clear();
  prefix_index_ = 0;
  return rest;
}

}  // namespace edgewise::text
