// Errors of the command line in words of its user.
#pragma once

#include <string>

namespace edgewise::cli {

// What CLI11 says of a value that is no number or out of its range, made readable; other messages
// stay as they are.
std::string UsageErrorText(const std::string& message);

}  // namespace edgewise::cli
