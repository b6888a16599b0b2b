// The syntax tree of a template. Nodes own their children; a parsed tree is immutable and may be
// rendered from several threads at once.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace edgewise::text::jinja {

enum class ExprKind : uint8_t {
  kConst,
  kName,
  kSequence,
  kDict,
  kUnary,
  kArithmetic,
  kConcat,
  kLogic,
  kCompare,
  kConditional,
  kAttribute,
  kItem,
  kSlice,
  kCall,
  kFilter,
  kTest,
};

struct Expr {
  Expr(ExprKind k, int l) : kind(k), line(l) {}
  virtual ~Expr() = default;
  const ExprKind kind;
  const int line;
};
using ExprPtr = std::unique_ptr<Expr>;

struct CallSpec {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star;       // *args or null
  ExprPtr star_star;  // **kwargs or null
};

template <ExprKind K>
struct ExprOf : Expr {
  explicit ExprOf(int l) : Expr(K, l) {}
};

struct ConstExpr : ExprOf<ExprKind::kConst> {
  ConstExpr(int l, Value v) : ExprOf(l), value(std::move(v)) {}
  Value value;
};
struct NameExpr : ExprOf<ExprKind::kName> {
  NameExpr(int l, std::string n) : ExprOf(l), name(std::move(n)) {}
  std::string name;
};
struct SequenceExpr : ExprOf<ExprKind::kSequence> {
  using ExprOf::ExprOf;
  bool tuple = false;
  std::vector<ExprPtr> items;
};
struct DictExpr : ExprOf<ExprKind::kDict> {
  using ExprOf::ExprOf;
  std::vector<std::pair<ExprPtr, ExprPtr>> entries;
};
struct UnaryExpr : ExprOf<ExprKind::kUnary> {
  using ExprOf::ExprOf;
  char op = '!';  // '!' not, '-', '+'
  ExprPtr operand;
};
enum class ArithmeticOp : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
// first op1 x1 op2 x2 ...: chains are flat, so that their length does not become depth.
struct ArithmeticExpr : ExprOf<ExprKind::kArithmetic> {
  using ExprOf::ExprOf;
  ExprPtr first;
  std::vector<std::pair<ArithmeticOp, ExprPtr>> rest;
};
struct ConcatExpr : ExprOf<ExprKind::kConcat> {
  using ExprOf::ExprOf;
  std::vector<ExprPtr> items;
};
struct LogicExpr : ExprOf<ExprKind::kLogic> {
  using ExprOf::ExprOf;
  bool is_and = false;
  std::vector<ExprPtr> items;
};
enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };
struct CompareExpr : ExprOf<ExprKind::kCompare> {
  using ExprOf::ExprOf;
  ExprPtr first;
  std::vector<std::pair<CompareOp, ExprPtr>> rest;
};
// a if test else b; `otherwise` may be null (undefined).
struct ConditionalExpr : ExprOf<ExprKind::kConditional> {
  using ExprOf::ExprOf;
  ExprPtr then, test, otherwise;
};
struct AttributeExpr : ExprOf<ExprKind::kAttribute> {
  using ExprOf::ExprOf;
  ExprPtr object;
  std::string name;
};
struct ItemExpr : ExprOf<ExprKind::kItem> {
  using ExprOf::ExprOf;
  ExprPtr object, key;
};
struct SliceExpr : ExprOf<ExprKind::kSlice> {
  using ExprOf::ExprOf;
  ExprPtr object, start, stop, step;  // null: left out
};
struct CallExpr : ExprOf<ExprKind::kCall> {
  using ExprOf::ExprOf;
  ExprPtr callee;
  CallSpec args;
};
struct FilterExpr : ExprOf<ExprKind::kFilter> {
  using ExprOf::ExprOf;
  ExprPtr input;  // null: the text of the enclosing block
  std::string name;
  CallSpec args;
};
struct TestExpr : ExprOf<ExprKind::kTest> {
  using ExprOf::ExprOf;
  ExprPtr input;
  std::string name;
  bool negated = false;
  CallSpec args;
};

enum class StmtKind : uint8_t {
  kData,
  kOutput,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kBreak,
  kContinue,
  kGeneration,
};

struct Stmt {
  Stmt(StmtKind k, int l) : kind(k), line(l) {}
  virtual ~Stmt() = default;
  const StmtKind kind;
  const int line;
};
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

template <StmtKind K>
struct StmtOf : Stmt {
  explicit StmtOf(int l) : Stmt(K, l) {}
};

// What is assigned to: a name, an attribute of a namespace, or a tuple of targets.
struct Target {
  std::string name;
  std::string attribute;      // not empty: name.attribute
  std::vector<Target> items;  // not empty: a tuple
};

struct DataStmt : StmtOf<StmtKind::kData> {
  using StmtOf::StmtOf;
  std::string text;
};
struct OutputStmt : StmtOf<StmtKind::kOutput> {
  using StmtOf::StmtOf;
  ExprPtr value;
};
struct IfStmt : StmtOf<StmtKind::kIf> {
  using StmtOf::StmtOf;
  std::vector<std::pair<ExprPtr, Body>> branches;  // if and elif
  Body otherwise;
};
struct ForStmt : StmtOf<StmtKind::kFor> {
  using StmtOf::StmtOf;
  Target target;
  ExprPtr iterable;
  ExprPtr filter;  // or null
  Body body, otherwise;
};
struct SetStmt : StmtOf<StmtKind::kSet> {
  using StmtOf::StmtOf;
  Target target;
  ExprPtr value;
};
struct SetBlockStmt : StmtOf<StmtKind::kSetBlock> {
  using StmtOf::StmtOf;
  Target target;
  ExprPtr filter;  // or null
  Body body;
};
struct MacroStmt : StmtOf<StmtKind::kMacro> {
  using StmtOf::StmtOf;
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  bool uses_varargs = false, uses_kwargs = false;
  Body body;
};
struct CallBlockStmt : StmtOf<StmtKind::kCallBlock> {
  using StmtOf::StmtOf;
  std::unique_ptr<MacroStmt> caller;  // the block's body
  ExprPtr call;                       // a CallExpr
};
struct FilterBlockStmt : StmtOf<StmtKind::kFilterBlock> {
  using StmtOf::StmtOf;
  ExprPtr filter;
  Body body;
};
struct WithStmt : StmtOf<StmtKind::kWith> {
  using StmtOf::StmtOf;
  std::vector<std::pair<Target, ExprPtr>> assignments;
  Body body;
};
struct BreakStmt : StmtOf<StmtKind::kBreak> {
  using StmtOf::StmtOf;
};
struct ContinueStmt : StmtOf<StmtKind::kContinue> {
  using StmtOf::StmtOf;
};
struct GenerationStmt : StmtOf<StmtKind::kGeneration> {
  using StmtOf::StmtOf;
  Body body;
};

}  // namespace edgewise::text::jinja
