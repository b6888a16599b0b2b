// Tokens to syntax tree. Depth is bounded while parsing: no input overflows the stack.
#pragma once

#include "base/status.h"
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"
#include "text/jinja/limits.h"

namespace edgewise::text::jinja {

class Parser {
 public:
  Parser(std::vector<Token> tokens, const JinjaLimits& limits)
      : tokens_(std::move(tokens)), limits_(limits) {}

  // The whole template. Errors: syntax, limit, or forbidden (include and other file access).
  Result<Body> ParseTemplate();

 private:
  // One level of nesting; a limit error when it is one too many.
  class Level {
   public:
    explicit Level(Parser* parser) : parser_(parser) { ++parser_->depth_; }
    ~Level() { --parser_->depth_; }
    Status Check() const;

   private:
    Parser* parser_;
  };

  const Token& Now() const { return tokens_[at_]; }
  const Token& Ahead(size_t n) const { return tokens_[std::min(at_ + n, tokens_.size() - 1)]; }
  Token Take();
  bool SkipOp(std::string_view op);
  bool SkipName(std::string_view name);
  Status ExpectOp(std::string_view op);
  Status ExpectName(std::string_view name);
  Result<std::string> ExpectAnyName();
  Status ExpectBlockEnd();
  Status Fail(std::string_view text) const;
  std::string Describe() const;  // the current token, for messages

  // parser.cc: statements. A body ends before a block whose first name is in `ends`; the name is
  // the current token then.
  Result<Body> ParseBody(std::initializer_list<std::string_view> ends);
  Result<StmtPtr> ParseStatement();
  Result<StmtPtr> ParseIf();
  Result<StmtPtr> ParseFor();
  Result<StmtPtr> ParseSet();
  Result<StmtPtr> ParseMacro();
  Result<StmtPtr> ParseCallBlock();
  Result<StmtPtr> ParseFilterBlock();
  Result<StmtPtr> ParseWith();
  Result<StmtPtr> ParseGeneration();
  Status ParseSignature(MacroStmt* macro);
  Result<Target> ParseTarget(bool with_namespace);
  Result<Target> ParseSingleTarget(bool with_namespace);

  // parser_expr.cc: expressions.
  Result<ExprPtr> ParseExpression();
  Result<ExprPtr> ParseOr();
  // Expressions separated by commas; one without a comma is itself, not a tuple.
  Result<ExprPtr> ParseTuple(bool with_conditional, bool in_parentheses);
  Result<ExprPtr> ParseAnd();
  Result<ExprPtr> ParseNot();
  Result<ExprPtr> ParseCompare();
  Result<ExprPtr> ParseSum();
  Result<ExprPtr> ParseConcat();
  Result<ExprPtr> ParseProduct();
  Result<ExprPtr> ParsePower();
  Result<ExprPtr> ParseUnary(bool with_filter);
  Result<ExprPtr> ParsePrimary();
  Result<ExprPtr> ParseList();
  Result<ExprPtr> ParseDict();
  Result<ExprPtr> ParsePostfix(ExprPtr node);
  Result<ExprPtr> ParsePostfixAndFilters(ExprPtr node);
  Result<ExprPtr> ParseSubscript(ExprPtr node);
  Result<ExprPtr> ParseFilter(ExprPtr input);
  Result<ExprPtr> ParseFilterChain(ExprPtr input);  // the current token is behind the first '|'
  Result<ExprPtr> ParseTest(ExprPtr input);
  Result<CallSpec> ParseCallArgs();
  Result<std::string> ParseDottedName();

  std::vector<Token> tokens_;
  JinjaLimits limits_;
  size_t at_ = 0;
  int depth_ = 0;
  int loop_depth_ = 0;              // break and continue are allowed inside
  std::vector<MacroStmt*> macros_;  // being parsed
};

}  // namespace edgewise::text::jinja
