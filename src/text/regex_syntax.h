// Oniguruma's syntax (as the tokenizers library uses it) rewritten as PCRE2's.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "base/status.h"

namespace edgewise::text {

// Differences that matter for tokenizers:
//   \s       does not match U+180E
//   \w       alphabetic characters, marks, decimal digits and connectors
//   \h       a hexadecimal digit;  \v the vertical tab alone
//   \p{Han}  the script alone, without script extensions
//   [a[bc]]  a class within a class is a union;  (?m: is what Perl calls (?s:;  \uHHHH
// `is_script` tells whether PCRE2 knows a script of that name.
Result<std::string> TranslateRegex(std::string_view pattern,
                                   const std::function<bool(std::string_view)>& is_script);

}  // namespace edgewise::text
