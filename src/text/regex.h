// Regular expressions of tokenizer files. They are written for Oniguruma; PCRE2 runs them after a
// translation of what the two read differently (regex_syntax.h). Time per match is limited.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/aligned_text.h"

namespace edgewise::text {

// What a thread needs to match: buffers of PCRE2. One per thread at a time.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(RegexScratch&&) noexcept;
  RegexScratch& operator=(RegexScratch&&) noexcept;

 private:
  friend class Regex;
  struct Buffers;
  std::unique_ptr<Buffers> buffers_;
};

// Cheap to copy, immutable, may be shared by threads.
class Regex {
 public:
  // Error: BadInput (malformed) or Unsupported (a construct of Oniguruma that has no counterpart).
  static Result<Regex> Compile(std::string_view pattern);

  // All matches in `text` (valid UTF-8) from left to right, appended to `out`. Error: the limit of
  // steps is reached.
  Status FindAll(std::string_view text, RegexScratch& scratch, std::vector<Range>* out) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace edgewise::text
