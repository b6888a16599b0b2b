#include "text/jinja/limits.h"

#include <fmt/format.h>

namespace edgewise::text::jinja {

std::string_view ErrorKindName(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kSyntax:
      return "syntax";
    case ErrorKind::kLimit:
      return "limit";
    case ErrorKind::kForbidden:
      return "forbidden";
    case ErrorKind::kValue:
      return "value";
    case ErrorKind::kRaised:
      return "raised";
  }
  return "unknown";
}

Status TemplateError(ErrorKind kind, int line, std::string_view text) {
  const std::string where = line > 0 ? fmt::format("template line {}", line) : "template";
  if (kind == ErrorKind::kRaised) return BadInput(fmt::format("{}: raised: {}", where, text));
  return BadInput(fmt::format("{}: {} error: {}", where, ErrorKindName(kind), text));
}

}  // namespace edgewise::text::jinja
