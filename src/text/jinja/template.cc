#include "text/jinja/template.h"

#include <simdjson.h>

#include "text/jinja/interpreter.h"
#include "text/jinja/lexer.h"
#include "text/jinja/parser.h"

namespace edgewise::text::jinja {

struct Template::Tree {
  JinjaLimits limits;
  Body body;
};

Result<Template> Template::Parse(std::string_view source, JinjaLimits limits) {
  if (!simdjson::validate_utf8(source.data(), source.size())) {
    return TemplateError(ErrorKind::kSyntax, 0, "the template is not valid UTF-8");
  }
  EW_ASSIGN(std::vector<Token> tokens, Tokenize(source, limits));
  EW_ASSIGN(Body body, Parser(std::move(tokens), limits).ParseTemplate());
  auto tree = std::make_shared<Tree>();
  tree->limits = limits;
  tree->body = std::move(body);
  return Template(std::move(tree));
}

Result<MarkedText> Template::Render(const std::vector<std::pair<std::string, Value>>& variables,
                                    const std::tm& now) const {
  return Interpreter(tree_->limits, now, variables).Render(tree_->body);
}

}  // namespace edgewise::text::jinja
