// Comma-separated values (RFC 4180): quoted fields may hold commas, line ends and doubled quotes.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edgewise::eval {

// Empty lines are skipped. Error: the line of a quote that is never closed or is followed by text.
Result<std::vector<std::vector<std::string>>> ParseCsv(std::string_view text);

}  // namespace edgewise::eval
