// Expressions: Jinja's grammar, where `~` binds tighter than + and -, and filters and tests bind
// tighter than every operator except a leading sign.
#include <fmt/format.h>

#include "text/jinja/parser.h"

namespace edgewise::text::jinja {

namespace {

// Conditionals in a row: each adds a level to the tree.
constexpr int kMaxChain = 100;

template <typename T>
std::unique_ptr<T> Make(int line) {
  return std::make_unique<T>(line);
}

}  // namespace

Result<ExprPtr> Parser::ParseExpression() {
  const Level level(this);
  EW_RETURN_IF_ERROR(level.Check());
  EW_ASSIGN(ExprPtr node, ParseOr());
  int links = 0;
  while (Now().IsName("if")) {
    if (++links > kMaxChain) return TemplateError(ErrorKind::kLimit, Now().line, "too many ifs");
    auto conditional = Make<ConditionalExpr>(Now().line);
    Take();
    conditional->then = std::move(node);
    EW_ASSIGN(conditional->test, ParseOr());
    if (SkipName("else")) {
      EW_ASSIGN(conditional->otherwise, ParseExpression());
    }
    node = std::move(conditional);
  }
  return node;
}

Result<ExprPtr> Parser::ParseOr() {
  EW_ASSIGN(ExprPtr first, ParseAnd());
  if (!Now().IsName("or")) return first;
  auto node = Make<LogicExpr>(Now().line);
  node->items.push_back(std::move(first));
  while (SkipName("or")) {
    EW_ASSIGN(ExprPtr next, ParseAnd());
    node->items.push_back(std::move(next));
  }
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseAnd() {
  EW_ASSIGN(ExprPtr first, ParseNot());
  if (!Now().IsName("and")) return first;
  auto node = Make<LogicExpr>(Now().line);
  node->is_and = true;
  node->items.push_back(std::move(first));
  while (SkipName("and")) {
    EW_ASSIGN(ExprPtr next, ParseNot());
    node->items.push_back(std::move(next));
  }
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseNot() {
  if (!Now().IsName("not")) return ParseCompare();
  const Level level(this);
  EW_RETURN_IF_ERROR(level.Check());
  auto node = Make<UnaryExpr>(Now().line);
  Take();
  EW_ASSIGN(node->operand, ParseNot());
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseCompare() {
  EW_ASSIGN(ExprPtr first, ParseSum());
  std::unique_ptr<CompareExpr> node;
  while (true) {
    CompareOp op;
    if (Now().IsOp("==")) {
      op = CompareOp::kEq;
    } else if (Now().IsOp("!=")) {
      op = CompareOp::kNe;
    } else if (Now().IsOp("<")) {
      op = CompareOp::kLt;
    } else if (Now().IsOp("<=")) {
      op = CompareOp::kLe;
    } else if (Now().IsOp(">")) {
      op = CompareOp::kGt;
    } else if (Now().IsOp(">=")) {
      op = CompareOp::kGe;
    } else if (Now().IsName("in")) {
      op = CompareOp::kIn;
    } else if (Now().IsName("not") && Ahead(1).IsName("in")) {
      Take();
      op = CompareOp::kNotIn;
    } else {
      break;
    }
    if (!node) node = Make<CompareExpr>(Now().line);
    Take();
    EW_ASSIGN(ExprPtr next, ParseSum());
    node->rest.emplace_back(op, std::move(next));
  }
  if (!node) return first;
  node->first = std::move(first);
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseSum() {
  EW_ASSIGN(ExprPtr first, ParseConcat());
  std::unique_ptr<ArithmeticExpr> node;
  while (Now().IsOp("+") || Now().IsOp("-")) {
    if (!node) node = Make<ArithmeticExpr>(Now().line);
    const ArithmeticOp op = Now().IsOp("+") ? ArithmeticOp::kAdd : ArithmeticOp::kSub;
    Take();
    EW_ASSIGN(ExprPtr next, ParseConcat());
    node->rest.emplace_back(op, std::move(next));
  }
  if (!node) return first;
  node->first = std::move(first);
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseConcat() {
  EW_ASSIGN(ExprPtr first, ParseProduct());
  if (!Now().IsOp("~")) return first;
  auto node = Make<ConcatExpr>(Now().line);
  node->items.push_back(std::move(first));
  while (SkipOp("~")) {
    EW_ASSIGN(ExprPtr next, ParseProduct());
    node->items.push_back(std::move(next));
  }
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseProduct() {
  EW_ASSIGN(ExprPtr first, ParsePower());
  std::unique_ptr<ArithmeticExpr> node;
  while (Now().IsOp("*") || Now().IsOp("/") || Now().IsOp("//") || Now().IsOp("%")) {
    if (!node) node = Make<ArithmeticExpr>(Now().line);
    const ArithmeticOp op = Now().IsOp("*")    ? ArithmeticOp::kMul
                            : Now().IsOp("/")  ? ArithmeticOp::kDiv
                            : Now().IsOp("//") ? ArithmeticOp::kFloorDiv
                                               : ArithmeticOp::kMod;
    Take();
    EW_ASSIGN(ExprPtr next, ParsePower());
    node->rest.emplace_back(op, std::move(next));
  }
  if (!node) return first;
  node->first = std::move(first);
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParsePower() {
  EW_ASSIGN(ExprPtr first, ParseUnary(/*with_filter=*/true));
  std::unique_ptr<ArithmeticExpr> node;
  while (Now().IsOp("**")) {
    if (!node) node = Make<ArithmeticExpr>(Now().line);
    Take();
    EW_ASSIGN(ExprPtr next, ParseUnary(/*with_filter=*/true));
    node->rest.emplace_back(ArithmeticOp::kPow, std::move(next));
  }
  if (!node) return first;
  node->first = std::move(first);
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseUnary(bool with_filter) {
  ExprPtr node;
  if (Now().IsOp("-") || Now().IsOp("+")) {
    const Level level(this);
    EW_RETURN_IF_ERROR(level.Check());
    auto unary = Make<UnaryExpr>(Now().line);
    unary->op = Take().text[0];
    EW_ASSIGN(unary->operand, ParseUnary(/*with_filter=*/false));
    node = std::move(unary);
  } else {
    EW_ASSIGN(node, ParsePrimary());
  }
  return with_filter ? ParsePostfixAndFilters(std::move(node)) : ParsePostfix(std::move(node));
}

Result<ExprPtr> Parser::ParsePrimary() {
  const Token& token = Now();
  const int line = token.line;
  const auto constant = [&](Value v) -> ExprPtr {
    return std::make_unique<ConstExpr>(line, std::move(v));
  };
  switch (token.kind) {
    case TokenKind::kName: {
      const std::string name = Take().text;
      if (name == "true" || name == "True") return constant(Value::Bool(true));
      if (name == "false" || name == "False") return constant(Value::Bool(false));
      if (name == "none" || name == "None") return constant(Value::None());
      if (!macros_.empty()) {
        if (name == "varargs") macros_.back()->uses_varargs = true;
        if (name == "kwargs") macros_.back()->uses_kwargs = true;
      }
      return ExprPtr(std::make_unique<NameExpr>(line, name));
    }
    case TokenKind::kString: {
      std::string text = Take().text;
      while (Now().kind == TokenKind::kString) text += Take().text;  // adjacent literals join
      return constant(Value::String(std::move(text)));
    }
    case TokenKind::kInteger:
      return constant(Value::Int(Take().integer));
    case TokenKind::kFloat:
      return constant(Value::Float(Take().number));
    case TokenKind::kOperator:
      if (token.text == "(") {
        Take();
        EW_ASSIGN(ExprPtr node, ParseTuple(/*with_conditional=*/true, /*in_parentheses=*/true));
        EW_RETURN_IF_ERROR(ExpectOp(")"));
        return node;
      }
      if (token.text == "[") return ParseList();
      if (token.text == "{") return ParseDict();
      break;
    default:
      break;
  }
  return Fail(fmt::format("expected an expression, found {}", Describe()));
}

Result<ExprPtr> Parser::ParseTuple(bool with_conditional, bool in_parentheses) {
  const int line = Now().line;
  const auto at_end = [&] {
    return Now().kind == TokenKind::kVariableEnd || Now().kind == TokenKind::kBlockEnd ||
           Now().IsOp(")");
  };
  std::vector<ExprPtr> items;
  bool comma = false;
  while (!at_end()) {
    Result<ExprPtr> item = with_conditional ? ParseExpression() : ParseOr();
    if (!item.ok()) return item.status();
    items.push_back(std::move(item).value());
    if (!Now().IsOp(",")) break;
    Take();
    comma = true;
  }
  if (items.size() == 1 && !comma) return std::move(items[0]);
  if (items.empty() && !in_parentheses) {
    return Fail(fmt::format("expected an expression, found {}", Describe()));
  }
  auto node = Make<SequenceExpr>(line);
  node->tuple = true;
  node->items = std::move(items);
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseList() {
  auto node = Make<SequenceExpr>(Now().line);
  Take();
  while (!Now().IsOp("]")) {
    if (!node->items.empty()) EW_RETURN_IF_ERROR(ExpectOp(","));
    if (Now().IsOp("]")) break;
    EW_ASSIGN(ExprPtr item, ParseExpression());
    node->items.push_back(std::move(item));
  }
  EW_RETURN_IF_ERROR(ExpectOp("]"));
  return ExprPtr(std::move(node));
}

Result<ExprPtr> Parser::ParseDict() {
  auto node = Make<DictExpr>(Now().line);
  Take();
  while (!Now().IsOp("}")) {
    if (!node->entries.empty()) EW_RETURN_IF_ERROR(ExpectOp(","));
    if (Now().IsOp("}")) break;
    EW_ASSIGN(ExprPtr key, ParseExpression());
    EW_RETURN_IF_ERROR(ExpectOp(":"));
    EW_ASSIGN(ExprPtr value, ParseExpression());
    node->entries.emplace_back(std::move(key), std::move(value));
  }
  EW_RETURN_IF_ERROR(ExpectOp("}"));
  return ExprPtr(std::move(node));
}

}  // namespace edgewise::text::jinja
