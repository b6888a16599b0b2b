// A parsed template. Errors of all kinds are Status values (see limits.h for their words).
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/jinja/limits.h"
#include "text/jinja/marked_text.h"
#include "text/jinja/value.h"

namespace edgewise::text::jinja {

class Template {
 public:
  // `source`: UTF-8.
  static Result<Template> Parse(std::string_view source, JinjaLimits limits = {});

  // Cheap to copy; may be rendered from several threads at once.
  // `variables`: name and value; `now`: what strftime_now() tells.
  Result<MarkedText> Render(const std::vector<std::pair<std::string, Value>>& variables,
                            const std::tm& now) const;

 private:
  struct Tree;
  explicit Template(std::shared_ptr<const Tree> tree) : tree_(std::move(tree)) {}
  std::shared_ptr<const Tree> tree_;
};

// JSON text to a value. Strings must be valid UTF-8 without lone surrogates, keys unique, integers
// within 64 bits, depth at most `max_depth`; the error says what is wrong. nothing follows the
// value but white space.
Result<Value> ParseJsonValue(std::string_view json, int max_depth = 64);

}  // namespace edgewise::text::jinja
