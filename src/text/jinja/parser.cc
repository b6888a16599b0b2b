#include "text/jinja/parser.h"

#include <fmt/format.h>

#include <algorithm>

namespace edgewise::text::jinja {

Status Parser::Level::Check() const {
  if (parser_->depth_ <= parser_->limits_.nesting) return Status::Ok();
  return TemplateError(ErrorKind::kLimit, parser_->Now().line,
                       fmt::format("nested deeper than {} levels", parser_->limits_.nesting));
}

Token Parser::Take() {
  if (Now().kind == TokenKind::kEnd) return Now();
  return std::move(tokens_[at_++]);
}

bool Parser::SkipOp(std::string_view op) {
  if (!Now().IsOp(op)) return false;
  ++at_;
  return true;
}

bool Parser::SkipName(std::string_view name) {
  if (!Now().IsName(name)) return false;
  ++at_;
  return true;
}

Status Parser::ExpectOp(std::string_view op) {
  if (SkipOp(op)) return Status::Ok();
  return Fail(fmt::format("expected '{}', found {}", op, Describe()));
}

Status Parser::ExpectName(std::string_view name) {
  if (SkipName(name)) return Status::Ok();
  return Fail(fmt::format("expected '{}', found {}", name, Describe()));
}

Result<std::string> Parser::ExpectAnyName() {
  if (Now().kind == TokenKind::kName) return Take().text;
  return Fail(fmt::format("expected a name, found {}", Describe()));
}

Status Parser::ExpectBlockEnd() {
  if (Now().kind != TokenKind::kBlockEnd) {
    return Fail(fmt::format("expected the end of the block, found {}", Describe()));
  }
  ++at_;
  return Status::Ok();
}

Status Parser::Fail(std::string_view text) const {
  return TemplateError(ErrorKind::kSyntax, Now().line, text);
}

std::string Parser::Describe() const {
  switch (Now().kind) {
    case TokenKind::kEnd:
      return "the end of the template";
    case TokenKind::kData:
      return "text";
    case TokenKind::kBlockBegin:
      return "'{%'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    case TokenKind::kVariableBegin:
      return "'{{'";
    case TokenKind::kVariableEnd:
      return "'}}'";
    case TokenKind::kInteger:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kString:
      return "a string";
    default:
      return fmt::format("'{}'", Now().text.substr(0, 40));
  }
}

Result<Body> Parser::ParseTemplate() {
  EW_ASSIGN(Body body, ParseBody({}));
  if (Now().kind != TokenKind::kEnd) {
    return Fail(fmt::format("{} without its beginning", Describe()));
  }
  return body;
}

Result<Body> Parser::ParseBody(std::initializer_list<std::string_view> ends) {
  const Level level(this);
  EW_RETURN_IF_ERROR(level.Check());
  Body body;
  while (true) {
    const int line = Now().line;
    switch (Now().kind) {
      case TokenKind::kEnd:
        if (ends.size() == 0) return body;
        return Fail(
            fmt::format("the template ends inside a block: '{}' is missing", *(ends.end() - 1)));
      case TokenKind::kData: {
        auto data = std::make_unique<DataStmt>(line);
        data->text = Take().text;
        body.push_back(std::move(data));
        break;
      }
      case TokenKind::kVariableBegin: {
        Take();
        auto output = std::make_unique<OutputStmt>(line);
        EW_ASSIGN(output->value, ParseTuple(/*with_conditional=*/true, /*in_parentheses=*/false));
        if (Now().kind != TokenKind::kVariableEnd) {
          return Fail(fmt::format("expected '}}}}', found {}", Describe()));
        }
        Take();
        body.push_back(std::move(output));
        break;
      }
      case TokenKind::kBlockBegin: {
        Take();
        if (Now().kind != TokenKind::kName) {
          return Fail(fmt::format("expected a tag name, found {}", Describe()));
        }
        if (std::find(ends.begin(), ends.end(), Now().text) != ends.end()) return body;
        EW_ASSIGN(StmtPtr statement, ParseStatement());
        body.push_back(std::move(statement));
        break;
      }
      default:
        return Fail(fmt::format("unexpected {}", Describe()));
    }
  }
}

Result<StmtPtr> Parser::ParseStatement() {
  const std::string& tag = Now().text;
  const int line = Now().line;
  if (tag == "if") return ParseIf();
  if (tag == "for") return ParseFor();
  if (tag == "set") return ParseSet();
  if (tag == "macro") return ParseMacro();
  if (tag == "call") return ParseCallBlock();
  if (tag == "filter") return ParseFilterBlock();
  if (tag == "with") return ParseWith();
  if (tag == "generation") return ParseGeneration();
  if (tag == "break" || tag == "continue") {
    if (loop_depth_ == 0) return Fail(fmt::format("'{}' outside of a loop", tag));
    StmtPtr node = tag == "break" ? StmtPtr(std::make_unique<BreakStmt>(line))
                                  : StmtPtr(std::make_unique<ContinueStmt>(line));
    Take();
    EW_RETURN_IF_ERROR(ExpectBlockEnd());
    return node;
  }
  if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") {
    return TemplateError(ErrorKind::kForbidden, line,
                         fmt::format("'{}' reads other files; a chat template may not", tag));
  }
  return Fail(fmt::format("unknown tag '{}'", tag.substr(0, 40)));
}

Result<StmtPtr> Parser::ParseIf() {
  auto node = std::make_unique<IfStmt>(Now().line);
  while (true) {
    Take();  // if or elif
    // Jinja takes a tuple without parentheses here; a conditional is allowed only in parentheses.
    EW_ASSIGN(ExprPtr test, ParseTuple(/*with_conditional=*/false, /*in_parentheses=*/false));
    EW_RETURN_IF_ERROR(ExpectBlockEnd());
    EW_ASSIGN(Body body, ParseBody({"elif", "else", "endif"}));
    node->branches.emplace_back(std::move(test), std::move(body));
    if (Now().IsName("elif")) continue;
    if (SkipName("else")) {
      EW_RETURN_IF_ERROR(ExpectBlockEnd());
      EW_ASSIGN(node->otherwise, ParseBody({"endif"}));
    }
    EW_RETURN_IF_ERROR(ExpectName("endif"));
    EW_RETURN_IF_ERROR(ExpectBlockEnd());
    return StmtPtr(std::move(node));
  }
}

Result<StmtPtr> Parser::ParseFor() {
  auto node = std::make_unique<ForStmt>(Now().line);
  Take();
  EW_ASSIGN(node->target, ParseTarget(/*with_namespace=*/false));
  EW_RETURN_IF_ERROR(ExpectName("in"));
  EW_ASSIGN(node->iterable, ParseTuple(/*with_conditional=*/false, /*in_parentheses=*/false));
  if (SkipName("if")) {
    EW_ASSIGN(node->filter, ParseExpression());
  }
  if (Now().IsName("recursive")) return Fail("recursive loops are not supported");
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  ++loop_depth_;
  Result<Body> body = ParseBody({"else", "endfor"});
  --loop_depth_;
  if (!body.ok()) return body.status();
  node->body = std::move(body).value();
  if (SkipName("else")) {
    EW_RETURN_IF_ERROR(ExpectBlockEnd());
    EW_ASSIGN(node->otherwise, ParseBody({"endfor"}));
  }
  EW_RETURN_IF_ERROR(ExpectName("endfor"));
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  return StmtPtr(std::move(node));
}

Result<Target> Parser::ParseSingleTarget(bool with_namespace) {
  const Level level(this);
  EW_RETURN_IF_ERROR(level.Check());
  if (SkipOp("(")) {
    EW_ASSIGN(Target inner, ParseTarget(with_namespace));
    EW_RETURN_IF_ERROR(ExpectOp(")"));
    return inner;
  }
  Target target;
  EW_ASSIGN(target.name, ExpectAnyName());
  static constexpr std::string_view kReserved[] = {"true", "false", "none", "True", "False",
                                                   "None", "loop",  "in",   "if",   "else"};
  if (std::find(std::begin(kReserved), std::end(kReserved), target.name) != std::end(kReserved)) {
    return Fail(fmt::format("cannot assign to '{}'", target.name));
  }
  if (with_namespace && SkipOp(".")) {
    EW_ASSIGN(target.attribute, ExpectAnyName());
  }
  return target;
}

Result<Target> Parser::ParseTarget(bool with_namespace) {
  EW_ASSIGN(Target first, ParseSingleTarget(with_namespace));
  if (!Now().IsOp(",")) return first;
  Target tuple;
  tuple.items.push_back(std::move(first));
  while (SkipOp(",")) {
    if (Now().IsName("in") || Now().IsOp("=") || Now().IsOp(")")) break;
    EW_ASSIGN(Target next, ParseSingleTarget(with_namespace));
    tuple.items.push_back(std::move(next));
  }
  return tuple;
}

Result<StmtPtr> Parser::ParseSet() {
  const int line = Now().line;
  Take();
  EW_ASSIGN(Target target, ParseTarget(/*with_namespace=*/true));
  if (SkipOp("=")) {
    auto node = std::make_unique<SetStmt>(line);
    node->target = std::move(target);
    EW_ASSIGN(node->value, ParseTuple(/*with_conditional=*/true, /*in_parentheses=*/false));
    EW_RETURN_IF_ERROR(ExpectBlockEnd());
    return StmtPtr(std::move(node));
  }
  auto node = std::make_unique<SetBlockStmt>(line);
  node->target = std::move(target);
  if (SkipOp("|")) {
    EW_ASSIGN(node->filter, ParseFilterChain(nullptr));
  }
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  EW_ASSIGN(node->body, ParseBody({"endset"}));
  Take();
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  return StmtPtr(std::move(node));
}

Status Parser::ParseSignature(MacroStmt* macro) {
  EW_RETURN_IF_ERROR(ExpectOp("("));
  while (!Now().IsOp(")")) {
    if (!macro->parameters.empty()) EW_RETURN_IF_ERROR(ExpectOp(","));
    if (Now().IsOp(")")) break;
    EW_ASSIGN(std::string name, ExpectAnyName());
    macro->parameters.push_back(std::move(name));
    if (SkipOp("=")) {
      EW_ASSIGN(ExprPtr value, ParseExpression());
      macro->defaults.push_back(std::move(value));
    } else if (!macro->defaults.empty()) {
      return Fail("a parameter without a default behind one with a default");
    }
  }
  return ExpectOp(")");
}

Result<StmtPtr> Parser::ParseMacro() {
  auto node = std::make_unique<MacroStmt>(Now().line);
  Take();
  EW_ASSIGN(node->name, ExpectAnyName());
  EW_RETURN_IF_ERROR(ParseSignature(node.get()));
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  macros_.push_back(node.get());
  const int outer_loops = std::exchange(loop_depth_, 0);
  Result<Body> body = ParseBody({"endmacro"});
  loop_depth_ = outer_loops;
  macros_.pop_back();
  if (!body.ok()) return body.status();
  node->body = std::move(body).value();
  Take();
  if (Now().kind == TokenKind::kName) Take();  // {% endmacro name %}
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  return StmtPtr(std::move(node));
}

Result<StmtPtr> Parser::ParseCallBlock() {
  auto node = std::make_unique<CallBlockStmt>(Now().line);
  node->caller = std::make_unique<MacroStmt>(Now().line);
  node->caller->name = "caller";
  Take();
  if (Now().IsOp("(")) EW_RETURN_IF_ERROR(ParseSignature(node->caller.get()));
  EW_ASSIGN(node->call, ParseExpression());
  if (node->call->kind != ExprKind::kCall) return Fail("{% call %} needs a call of a macro");
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  const int outer_loops = std::exchange(loop_depth_, 0);
  Result<Body> body = ParseBody({"endcall"});
  loop_depth_ = outer_loops;
  if (!body.ok()) return body.status();
  node->caller->body = std::move(body).value();
  Take();
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  return StmtPtr(std::move(node));
}

Result<StmtPtr> Parser::ParseFilterBlock() {
  auto node = std::make_unique<FilterBlockStmt>(Now().line);
  Take();
  EW_ASSIGN(node->filter, ParseFilterChain(nullptr));
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  EW_ASSIGN(node->body, ParseBody({"endfilter"}));
  Take();
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  return StmtPtr(std::move(node));
}

Result<StmtPtr> Parser::ParseWith() {
  auto node = std::make_unique<WithStmt>(Now().line);
  Take();
  while (Now().kind != TokenKind::kBlockEnd) {
    if (!node->assignments.empty()) EW_RETURN_IF_ERROR(ExpectOp(","));
    EW_ASSIGN(Target target, ParseSingleTarget(/*with_namespace=*/false));
    EW_RETURN_IF_ERROR(ExpectOp("="));
    EW_ASSIGN(ExprPtr value, ParseExpression());
    node->assignments.emplace_back(std::move(target), std::move(value));
  }
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  EW_ASSIGN(node->body, ParseBody({"endwith"}));
  Take();
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  return StmtPtr(std::move(node));
}

Result<StmtPtr> Parser::ParseGeneration() {
  auto node = std::make_unique<GenerationStmt>(Now().line);
  Take();
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  const int outer_loops = std::exchange(loop_depth_, 0);
  Result<Body> body = ParseBody({"endgeneration"});
  loop_depth_ = outer_loops;
  if (!body.ok()) return body.status();
  node->body = std::move(body).value();
  Take();
  EW_RETURN_IF_ERROR(ExpectBlockEnd());
  return StmtPtr(std::move(node));
}

}  // namespace edgewise::text::jinja
