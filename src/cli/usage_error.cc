#include "cli/usage_error.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

namespace edgewise::cli {
namespace {

bool ParseNumber(std::string_view text, double* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string UsageErrorText(const std::string& message) {
  // "Could not convert: --learning-rate = abc"
  constexpr std::string_view kConvert = "Could not convert: ", kValue = ": Value ",
                             kRange = " not in range ", kTo = " to ";
  if (const size_t equals = message.find(" = ");
      message.starts_with(kConvert) && equals != std::string::npos) {
    return fmt::format("{}: '{}' is not a number",
                       message.substr(kConvert.size(), equals - kConvert.size()),
                       message.substr(equals + 3));
  }
  // "--ctx: Value -1 not in range 0.000000 to 1797...": how NonNegativeNumber puts it.
  const size_t value = message.find(kValue), range = message.find(kRange);
  if (value == std::string::npos || range == std::string::npos || range < value) return message;
  const std::string name = message.substr(0, value);
  const std::string given = message.substr(value + kValue.size(), range - value - kValue.size());
  const std::string_view bounds = std::string_view(message).substr(range + kRange.size());
  const size_t to = bounds.find(kTo);
  double number = 0, low = 0, high = 0;
  if (!ParseNumber(given, &number)) return fmt::format("{}: '{}' is not a number", name, given);
  if (to == std::string_view::npos || !ParseNumber(bounds.substr(0, to), &low) ||
      !ParseNumber(bounds.substr(to + kTo.size()), &high)) {
    return message;
  }
  if (high < 1e18)
    return fmt::format("{}: {} is not between {:g} and {:g}", name, given, low, high);
  // A positive number's lower bound is the smallest there is; CLI11 prints it as 0.
  return fmt::format("{}: {} is too small: it must {}", name, given,
                     number == 0 ? "be above 0" : "not be negative");
}

}  // namespace edgewise::cli
