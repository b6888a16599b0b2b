// Regular expressions that come from files: matched with limits, by PCRE2.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace edgewise::formats {

class Pattern {
 public:
  // Error: the expression, what is wrong and where.
  static Result<Pattern> Compile(const std::string& expression);

  // Whether the expression matches at the start of `text` (Python's re.match). An expression that
  // exceeds the limits on work and memory counts as no match.
  bool MatchesStart(std::string_view text) const;
  // The first group's text of such a match; nothing without match or group.
  bool FirstGroup(std::string_view text, std::string& group) const;

 private:
  std::shared_ptr<const void> code_;
};

}  // namespace edgewise::formats
