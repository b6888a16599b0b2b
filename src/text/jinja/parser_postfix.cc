// Attributes, subscripts, calls, filters and tests: what stands behind an expression.
#include <fmt/format.h>

#include "text/jinja/parser.h"

namespace edgewise::text::jinja {

namespace {

// Links in a row: each adds a level to the tree.
constexpr int kMaxChain = 100;

template <typename T>
std::unique_ptr<T> Make(int line) {
  return std::make_unique<T>(line);
}

}  // namespace

Result<ExprPtr> Parser::ParsePostfix(ExprPtr node) {
  for (int links = 0;; ++links) {
    if (links > kMaxChain) return TemplateError(ErrorKind::kLimit, Now().line, "chain too long");
    if (Now().IsOp(".") || Now().IsOp("[")) {
      EW_ASSIGN(node, ParseSubscript(std::move(node)));
    } else if (Now().IsOp("(")) {
      auto call = Make<CallExpr>(Now().line);
      call->callee = std::move(node);
      EW_ASSIGN(call->args, ParseCallArgs());
      node = std::move(call);
    } else {
      return node;
    }
  }
}

Result<ExprPtr> Parser::ParsePostfixAndFilters(ExprPtr node) {
  EW_ASSIGN(node, ParsePostfix(std::move(node)));
  for (int links = 0;; ++links) {
    if (links > kMaxChain) return TemplateError(ErrorKind::kLimit, Now().line, "chain too long");
    if (SkipOp("|")) {
      EW_ASSIGN(node, ParseFilter(std::move(node)));
    } else if (SkipName("is")) {
      EW_ASSIGN(node, ParseTest(std::move(node)));
    } else if (Now().IsOp("(")) {
      auto call = Make<CallExpr>(Now().line);
      call->callee = std::move(node);
      EW_ASSIGN(call->args, ParseCallArgs());
      node = std::move(call);
    } else {
      return node;
    }
  }
}

Result<ExprPtr> Parser::ParseSubscript(ExprPtr object) {
  const int line = Now().line;
  if (SkipOp(".")) {
    if (Now().kind == TokenKind::kName) {
      auto node = Make<AttributeExpr>(line);
      node->object = std::move(object);
      node->name = Take().text;
      return ExprPtr(std::move(node));
    }
    if (Now().kind != TokenKind::kInteger) {
      return Fail(fmt::format("expected a name behind '.', found {}", Describe()));
    }
    auto node = Make<ItemExpr>(line);
    node->object = std::move(object);
    node->key = std::make_unique<ConstExpr>(line, Value::Int(Take().integer));
    return ExprPtr(std::move(node));
  }
  EW_RETURN_IF_ERROR(ExpectOp("["));
  ExprPtr parts[3];
  int part = 0;
  bool slice = false;
  while (!Now().IsOp("]")) {
    if (SkipOp(":")) {
      slice = true;
      if (++part > 2) return Fail("a slice has at most three parts");
      continue;
    }
    if (parts[part]) return Fail(fmt::format("expected ']', found {}", Describe()));
    EW_ASSIGN(parts[part], ParseExpression());
  }
  EW_RETURN_IF_ERROR(ExpectOp("]"));
  if (slice) {
    auto node = Make<SliceExpr>(line);
    node->object = std::move(object);
    node->start = std::move(parts[0]);
    node->stop = std::move(parts[1]);
    node->step = std::move(parts[2]);
    return ExprPtr(std::move(node));
  }
  if (!parts[0]) return Fail("expected an expression between [ and ]");
  auto node = Make<ItemExpr>(line);
  node->object = std::move(object);
  node->key = std::move(parts[0]);
  return ExprPtr(std::move(node));
}

Result<std::string> Parser::ParseDottedName() {
  EW_ASSIGN(std::string name, ExpectAnyName());
  while (Now().IsOp(".") && Ahead(1).kind == TokenKind::kName) {
    Take();
    name += '.';
    name += Take().text;
  }
  return name;
}

Result<ExprPtr> Parser::ParseFilter(ExprPtr input) {
  auto node = Make<FilterExpr>(Now().line);
  node->input = std::move(input);
  EW_ASSIGN(node->name, ParseDottedName());
  if (Now().IsOp("(")) {
    EW_ASSIGN(node->args, ParseCallArgs());
  }
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseFilterChain(ExprPtr input) {
  EW_ASSIGN(ExprPtr node, ParseFilter(std::move(input)));
  for (int links = 0; SkipOp("|"); ++links) {
    if (links > kMaxChain) return TemplateError(ErrorKind::kLimit, Now().line, "chain too long");
    EW_ASSIGN(node, ParseFilter(std::move(node)));
  }
  return node;
}

Result<ExprPtr> Parser::ParseTest(ExprPtr input) {
  auto node = Make<TestExpr>(Now().line);
  node->negated = SkipName("not");
  node->input = std::move(input);
  EW_ASSIGN(node->name, ParseDottedName());
  if (Now().IsOp("(")) {
    EW_ASSIGN(node->args, ParseCallArgs());
    return ExprPtr(std::move(node));
  }
  const Token& next = Now();
  const bool operand = next.kind == TokenKind::kString || next.kind == TokenKind::kInteger ||
                       next.kind == TokenKind::kFloat || next.IsOp("[") || next.IsOp("{") ||
                       (next.kind == TokenKind::kName && next.text != "else" && next.text != "or" &&
                        next.text != "and" && next.text != "is" && next.text != "if" &&
                        next.text != "not" && next.text != "in" && next.text != "recursive");
  if (operand) {  // "x is divisibleby 3"
    const Level level(this);
    EW_RETURN_IF_ERROR(level.Check());
    EW_ASSIGN(ExprPtr argument, ParsePrimary());
    EW_ASSIGN(argument, ParsePostfix(std::move(argument)));
    node->args.positional.push_back(std::move(argument));
  }
  return ExprPtr(std::move(node));
}

Result<CallSpec> Parser::ParseCallArgs() {
  EW_RETURN_IF_ERROR(ExpectOp("("));
  CallSpec args;
  bool first = true;
  while (!Now().IsOp(")")) {
    if (!first) EW_RETURN_IF_ERROR(ExpectOp(","));
    first = false;
    if (Now().IsOp(")")) break;
    if (SkipOp("*")) {
      if (args.star || args.star_star) return Fail("more than one *args");
      EW_ASSIGN(args.star, ParseExpression());
    } else if (SkipOp("**")) {
      if (args.star_star) return Fail("more than one **kwargs");
      EW_ASSIGN(args.star_star, ParseExpression());
    } else if (Now().kind == TokenKind::kName && Ahead(1).IsOp("=")) {
      if (args.star_star) return Fail("an argument behind **kwargs");
      std::string name = Take().text;
      Take();
      EW_ASSIGN(ExprPtr value, ParseExpression());
      args.named.emplace_back(std::move(name), std::move(value));
    } else {
      if (args.star || args.star_star || !args.named.empty()) {
        return Fail("a positional argument behind named ones");
      }
      EW_ASSIGN(ExprPtr value, ParseExpression());
      args.positional.push_back(std::move(value));
    }
  }
  EW_RETURN_IF_ERROR(ExpectOp(")"));
  return args;
}

}  // namespace edgewise::text::jinja
