// "did you mean": the known name nearest to a mistyped one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace edgewise::cli {

// The candidate with the smallest edit distance when that is at most 2 or a third of the name's
// length, else "".
std::string Suggest(std::string_view name, const std::vector<std::string>& candidates);

// "; did you mean X?" or "".
std::string DidYouMean(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace edgewise::cli
