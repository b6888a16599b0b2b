// Walks the tree of a template and writes its text.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/runtime.h"

namespace edgewise::text::jinja {

// Variables of one block. A scope that a macro was defined in outlives its block.
struct Scope {
  explicit Scope(Scope* p) : parent(p) {}
  Scope* parent;
  bool captured = false;
  std::vector<std::pair<std::string, Value>> variables;

  Value* Find(std::string_view name);
  void Set(std::string_view name, Value value);
};

class Interpreter : public Runtime {
 public:
  // `globals` are the variables that the caller gives; they hide functions of the same name.
  Interpreter(const JinjaLimits& limits, std::optional<std::tm> now,
              const std::vector<std::pair<std::string, Value>>& globals);
  ~Interpreter() override;

  // The rendered text with its marks.
  Result<MarkedText> Render(const Body& body);

  Result<Value> Call(const Value& callee, CallArgs& args) override;

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };

  // Enters a new scope for as long as it lives.
  class ScopeGuard {
   public:
    ScopeGuard(Interpreter* in, Scope* parent);
    ~ScopeGuard();
    ScopeGuard(const ScopeGuard&) = delete;
    ScopeGuard& operator=(const ScopeGuard&) = delete;

   private:
    Interpreter* in_;
    Scope* before_;
    std::unique_ptr<Scope> scope_;
  };
  class DepthGuard {
   public:
    explicit DepthGuard(Interpreter* in) : in_(in) { ++in_->depth_; }
    ~DepthGuard() { --in_->depth_; }

   private:
    Interpreter* in_;
  };

  // interpreter.cc: statements.
  Status ExecBody(const Body& body);
  Status Exec(const Stmt& stmt);
  Status ExecIf(const IfStmt& stmt);
  Status ExecFor(const ForStmt& stmt);
  Status ExecSetBlock(const SetBlockStmt& stmt);
  Status ExecCallBlock(const CallBlockStmt& stmt);
  Status ExecWith(const WithStmt& stmt);
  Status Assign(const Target& target, const Value& value);
  Status Emit(const Value& value);
  Status EmitData(std::string_view text);
  // Runs the body in a scope of its own and returns what it writes.
  Result<Value> Capture(const Body& body, Scope* parent);
  Value DefineMacro(const MacroStmt& stmt);
  Result<Value> CallMacro(const Macro& macro, CallArgs& args);
  Status BindMacroArgs(const MacroStmt& macro, CallArgs& args);

  // eval.cc: expressions.
  Result<Value> Eval(const Expr& expr);
  Result<Value> EvalName(const NameExpr& expr);
  Result<Value> EvalSequence(const SequenceExpr& expr);
  Result<Value> EvalDict(const DictExpr& expr);
  Result<Value> EvalUnary(const UnaryExpr& expr);
  Result<Value> EvalArithmetic(const ArithmeticExpr& expr);
  Result<Value> EvalConcat(const ConcatExpr& expr);
  Result<Value> EvalLogic(const LogicExpr& expr);
  Result<Value> EvalCompare(const CompareExpr& expr);
  Result<bool> CompareOnce(CompareOp op, const Value& a, const Value& b);
  Result<Value> EvalConditional(const ConditionalExpr& expr);
  Result<Value> EvalSlice(const SliceExpr& expr);
  Result<Value> EvalCall(const CallExpr& expr);
  Result<Value> EvalFilter(const FilterExpr& expr);
  Result<Value> EvalTest(const TestExpr& expr);
  Result<CallArgs> EvalArgs(const CallSpec& spec);

  Scope root_{nullptr};
  Scope* scope_ = &root_;
  std::vector<std::unique_ptr<Scope>> captured_;
  MarkedTextBuilder* out_ = nullptr;
  int64_t outer_bytes_ = 0;  // in the buffers that wait for the current one
  Value block_input_;        // what a filter block or set block filters
  Flow flow_ = Flow::kNext;
  int depth_ = 0;
  int call_depth_ = 0;
};

}  // namespace edgewise::text::jinja
