#include "text/pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "text/json_fields.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

struct Part {
  Range range;
  bool is_match;
};

// Joins every match that does not follow another match to the part before it.
std::vector<Part> MergeWithPrevious(const std::vector<Part>& parts) {
  std::vector<Part> out;
  bool previous_match = false;
  for (const Part& part : parts) {
    if (part.is_match && !previous_match && !out.empty()) {
      out.back().range.end = part.range.end;
    } else {
      out.push_back({part.range, false});
    }
    previous_match = part.is_match;
  }
  return out;
}

std::vector<Part> MergeWithNext(const std::vector<Part>& parts) {
  std::vector<Part> out;
  bool previous_match = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->is_match && !previous_match && !out.empty()) {
      out.back().range.begin = part->range.begin;
    } else {
      out.push_back({part->range, false});
    }
    previous_match = part->is_match;
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<Part> MergeContiguous(const std::vector<Part>& parts) {
  std::vector<Part> out;
  bool previous_match = false;
  for (const Part& part : parts) {
    if (part.is_match == previous_match && !out.empty()) {
      out.back().range.end = part.range.end;
    } else {
      out.push_back({part.range, false});
    }
    previous_match = part.is_match;
  }
  return out;
}

}  // namespace

Pattern Pattern::Literal(std::string literal) {
  Pattern out;
  out.literal_ = std::move(literal);
  return out;
}

Pattern Pattern::Class(CharClass chars) {
  Pattern out;
  out.chars_ = chars;
  return out;
}

Result<Pattern> Pattern::FromRegex(std::string_view regex) {
  Pattern out;
  EW_ASSIGN(out.regex_, Regex::Compile(regex));
  return out;
}

Result<Pattern> Pattern::FromJson(const JsonObject& owner) {
  EW_ASSIGN(const JsonObject pattern, owner.Object("pattern"));
  EW_ASSIGN(const std::optional<std::string_view> literal, pattern.OptionalString("String"));
  if (literal) {
    if (literal->empty()) return Unsupported(fmt::format("{}: an empty string", pattern.where));
    return Literal(std::string(*literal));
  }
  EW_ASSIGN(const std::string_view regex, pattern.String("Regex"));
  return FromRegex(regex).WithContext(pattern.where);
}

Status Pattern::FindAll(std::string_view text, RegexScratch& scratch,
                        std::vector<Range>* out) const {
  out->clear();
  if (!literal_.empty()) {
    for (size_t at = text.find(literal_); at != std::string_view::npos;
         at = text.find(literal_, at + literal_.size())) {
      out->push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(at + literal_.size())});
    }
    return Status::Ok();
  }
  if (chars_ == nullptr) return regex_.FindAll(text, scratch, out);
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (chars_(NextChar(text, &pos))) {
      out->push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(pos)});
    }
  }
  return Status::Ok();
}

Result<SplitBehavior> ParseSplitBehavior(std::string_view name, std::string_view where) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return Unsupported(fmt::format("{}: split behavior '{}'", where, name));
}

void SplitAt(Range whole, const std::vector<Range>& matches, SplitBehavior behavior, bool invert,
             std::vector<Range>* out) {
  auto emit = [&](Range range) {
    if (!range.empty()) out->push_back({whole.begin + range.begin, whole.begin + range.end});
  };
  const bool plain = behavior == SplitBehavior::kIsolated || behavior == SplitBehavior::kRemoved;
  std::vector<Part> parts;
  auto add = [&](Range range, bool is_match) {
    if (!plain) {
      parts.push_back({range, is_match != invert});
    } else if (behavior == SplitBehavior::kIsolated || is_match == invert) {
      emit(range);
    }
  };
  uint32_t previous = 0;
  for (const Range& match : matches) {
    if (previous != match.begin) add({previous, match.begin}, false);
    add(match, true);
    previous = match.end;
  }
  if (previous != whole.size()) add({previous, whole.size()}, false);
  if (plain) return;
  if (behavior == SplitBehavior::kMergedWithPrevious) parts = MergeWithPrevious(parts);
  if (behavior == SplitBehavior::kMergedWithNext) parts = MergeWithNext(parts);
  if (behavior == SplitBehavior::kContiguous) parts = MergeContiguous(parts);
  for (const Part& part : parts) emit(part.range);
}

}  // namespace edgewise::text
