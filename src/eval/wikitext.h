// WikiText as lm-evaluation-harness reads it, and word counts as it counts them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace edgewise::eval {

// len(re.split(r"\s+", text)) of Python: runs of Unicode white space plus one. An empty text has
// one word by this rule.
int64_t CountWords(std::string_view text);

// The articles of a WikiText file: each begins at a line " = Title = " (one equals sign each side,
// not two). Empty when the text does not begin like WikiText.
std::vector<std::string> SplitWikitextPages(std::string_view text);

// Undoes WikiText's spacing of punctuation with the harness's list of replacements.
std::string DetokenizeWikitext(std::string_view page);

}  // namespace edgewise::eval
