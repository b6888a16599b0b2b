// What Split, Replace and their kin look for, and the ways to cut a text there.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/aligned_text.h"
#include "text/regex.h"

namespace edgewise::text {

struct JsonObject;

class Pattern {
 public:
  using CharClass = bool (*)(char32_t);

  // `literal` must not be empty.
  static Pattern Literal(std::string literal);
  static Pattern Class(CharClass chars);
  static Result<Pattern> FromRegex(std::string_view regex);
  // {"String": "..."} or {"Regex": "..."} under the key "pattern".
  static Result<Pattern> FromJson(const JsonObject& owner);

  // All matches in `text`, left to right, into `out` (cleared first). A character class gives one
  // match per character.
  Status FindAll(std::string_view text, RegexScratch& scratch, std::vector<Range>* out) const;

 private:
  Pattern() = default;
  // One of these: the literal if it is not empty, the class if it is not null, else the expression.
  std::string literal_;
  CharClass chars_ = nullptr;
  Regex regex_;
};

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

Result<SplitBehavior> ParseSplitBehavior(std::string_view name, std::string_view where);

// Cuts `whole` (a range of a larger text) at `matches` (relative to whole.begin) and appends the
// non-empty pieces to `out`. `invert`: what lies between the matches is the delimiter.
void SplitAt(Range whole, const std::vector<Range>& matches, SplitBehavior behavior, bool invert,
             std::vector<Range>* out);

}  // namespace edgewise::text
