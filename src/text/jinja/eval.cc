// Expressions.
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/interpreter.h"
#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

namespace {

constexpr int kMaxDepth = 800;  // as for statements

}  // namespace

Result<Value> Interpreter::Eval(const Expr& expr) {
  const DepthGuard guard(this);
  line_ = expr.line;
  EW_RETURN_IF_ERROR(Step());
  if (depth_ > kMaxDepth) return Error(ErrorKind::kLimit, "expressions and calls nested too deep");
  switch (expr.kind) {
    case ExprKind::kConst:
      return static_cast<const ConstExpr&>(expr).value;
    case ExprKind::kName:
      return EvalName(static_cast<const NameExpr&>(expr));
    case ExprKind::kSequence:
      return EvalSequence(static_cast<const SequenceExpr&>(expr));
    case ExprKind::kDict:
      return EvalDict(static_cast<const DictExpr&>(expr));
    case ExprKind::kUnary:
      return EvalUnary(static_cast<const UnaryExpr&>(expr));
    case ExprKind::kArithmetic:
      return EvalArithmetic(static_cast<const ArithmeticExpr&>(expr));
    case ExprKind::kConcat:
      return EvalConcat(static_cast<const ConcatExpr&>(expr));
    case ExprKind::kLogic:
      return EvalLogic(static_cast<const LogicExpr&>(expr));
    case ExprKind::kCompare:
      return EvalCompare(static_cast<const CompareExpr&>(expr));
    case ExprKind::kConditional:
      return EvalConditional(static_cast<const ConditionalExpr&>(expr));
    case ExprKind::kAttribute: {
      const auto& attribute = static_cast<const AttributeExpr&>(expr);
      EW_ASSIGN(const Value object, Eval(*attribute.object));
      return GetAttribute(object, attribute.name);
    }
    case ExprKind::kItem: {
      const auto& item = static_cast<const ItemExpr&>(expr);
      EW_ASSIGN(const Value object, Eval(*item.object));
      EW_ASSIGN(const Value key, Eval(*item.key));
      return GetItem(object, key);
    }
    case ExprKind::kSlice:
      return EvalSlice(static_cast<const SliceExpr&>(expr));
    case ExprKind::kCall:
      return EvalCall(static_cast<const CallExpr&>(expr));
    case ExprKind::kFilter:
      return EvalFilter(static_cast<const FilterExpr&>(expr));
    case ExprKind::kTest:
      return EvalTest(static_cast<const TestExpr&>(expr));
  }
  return Internal("an expression of unknown kind");
}

Result<Value> Interpreter::EvalName(const NameExpr& expr) {
  for (Scope* s = scope_; s != nullptr; s = s->parent) {
    if (const Value* found = s->Find(expr.name)) return *found;
  }
  if (const Value* found = root_.Find(expr.name)) return *found;
  return Value::Undefined(fmt::format("'{}' is undefined", expr.name));
}

Result<Value> Interpreter::EvalSequence(const SequenceExpr& expr) {
  std::vector<Value> items;
  for (const ExprPtr& item : expr.items) {
    EW_ASSIGN(Value value, Eval(*item));
    items.push_back(std::move(value));
  }
  return expr.tuple ? NewTuple(std::move(items)) : NewList(std::move(items));
}

Result<Value> Interpreter::EvalDict(const DictExpr& expr) {
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [key_expr, value_expr] : expr.entries) {
    EW_ASSIGN(Value key, Eval(*key_expr));
    EW_ASSIGN(Value value, Eval(*value_expr));
    entries.emplace_back(std::move(key), std::move(value));
  }
  return NewDict(std::move(entries));
}

Result<Value> Interpreter::EvalUnary(const UnaryExpr& expr) {
  EW_ASSIGN(const Value value, Eval(*expr.operand));
  if (expr.op == '!') return Value::Bool(!Truthy(value));
  if (!value.is_number()) {
    if (value.is_undefined()) return ValueError(value.why_undefined());
    return ValueError(fmt::format("bad operand type for unary {}: '{}'", expr.op, TypeName(value)));
  }
  if (expr.op == '-') return Arithmetic(*this, ArithmeticOp::kSub, Value::Int(0), value);
  return value.kind() == Kind::kBool ? Value::Int(value.integer()) : value;
}

Result<Value> Interpreter::EvalArithmetic(const ArithmeticExpr& expr) {
  EW_ASSIGN(Value value, Eval(*expr.first));
  for (const auto& [op, operand] : expr.rest) {
    EW_ASSIGN(const Value right, Eval(*operand));
    line_ = expr.line;
    EW_ASSIGN(value, Arithmetic(*this, op, value, right));
  }
  return value;
}

Result<Value> Interpreter::EvalConcat(const ConcatExpr& expr) {
  MarkedTextBuilder builder = Builder();
  for (const ExprPtr& item : expr.items) {
    EW_ASSIGN(const Value value, Eval(*item));
    EW_RETURN_IF_ERROR(AppendText(value, &builder));
  }
  return NewText(std::move(builder));
}

Result<Value> Interpreter::EvalLogic(const LogicExpr& expr) {
  Value value;
  for (const ExprPtr& item : expr.items) {
    EW_ASSIGN(value, Eval(*item));
    if (Truthy(value) != expr.is_and) break;
  }
  return value;
}

Result<Value> Interpreter::EvalCompare(const CompareExpr& expr) {
  EW_ASSIGN(Value left, Eval(*expr.first));
  for (const auto& [op, operand] : expr.rest) {
    EW_ASSIGN(Value right, Eval(*operand));
    line_ = expr.line;
    EW_ASSIGN(const bool holds, CompareOnce(op, left, right));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Result<bool> Interpreter::CompareOnce(CompareOp op, const Value& a, const Value& b) {
  switch (op) {
    case CompareOp::kEq:
      return AreEqual(a, b);
    case CompareOp::kNe: {
      EW_ASSIGN(const bool equal, AreEqual(a, b));
      return !equal;
    }
    case CompareOp::kIn:
      return Contains(b, a);
    case CompareOp::kNotIn: {
      EW_ASSIGN(const bool contains, Contains(b, a));
      return !contains;
    }
    default:
      break;
  }
  if (a.is_undefined()) return ValueError(a.why_undefined());
  if (b.is_undefined()) return ValueError(b.why_undefined());
  EW_ASSIGN(const int order, Order(a, b));
  switch (op) {
    case CompareOp::kLt:
      return order < 0;
    case CompareOp::kLe:
      return order <= 0;
    case CompareOp::kGt:
      return order > 0;
    default:
      return order >= 0;
  }
}

Result<Value> Interpreter::EvalConditional(const ConditionalExpr& expr) {
  EW_ASSIGN(const Value test, Eval(*expr.test));
  if (Truthy(test)) return Eval(*expr.then);
  if (expr.otherwise) return Eval(*expr.otherwise);
  return Value::Undefined("an inline if without else is false");
}

Result<Value> Interpreter::EvalSlice(const SliceExpr& expr) {
  EW_ASSIGN(const Value object, Eval(*expr.object));
  std::optional<int64_t> bounds[3];
  const ExprPtr* const parts[3] = {&expr.start, &expr.stop, &expr.step};
  for (int i = 0; i < 3; ++i) {
    if (!*parts[i]) continue;
    EW_ASSIGN(const Value value, Eval(**parts[i]));
    if (value.is_none()) continue;
    if (!value.is_integral()) {
      return ValueError(fmt::format("slice indices must be integers, not {}", TypeName(value)));
    }
    bounds[i] = value.integer();
  }
  if (object.is_undefined()) return ValueError(object.why_undefined());
  if (!object.is_string() && !object.is_sequence()) {
    return ValueError(fmt::format("'{}' object cannot be sliced", TypeName(object)));
  }
  if (object.is_string()) EW_RETURN_IF_ERROR(Work(static_cast<int64_t>(object.str().size())));
  const auto size = static_cast<int64_t>(object.is_string() ? CodePointCount(object.str())
                                                            : object.items().size());
  const int64_t step = bounds[2].value_or(1);
  if (step == 0) return ValueError("slice step cannot be zero");
  // Python's rules: negative bounds count from the end, then everything is clamped.
  const auto clamp = [&](std::optional<int64_t> bound, int64_t fallback) {
    if (!bound) return fallback;
    int64_t b = *bound;
    if (b < 0) b += size;
    return step > 0 ? std::clamp<int64_t>(b, 0, size) : std::clamp<int64_t>(b, -1, size - 1);
  };
  const int64_t start = clamp(bounds[0], step > 0 ? 0 : size - 1);
  const int64_t stop = clamp(bounds[1], step > 0 ? size : -1);
  if (object.is_string() && step == 1) {
    const size_t begin = OffsetOfCodePoint(object.str(), static_cast<size_t>(start));
    if (stop <= start) return Slice(object, begin, begin);
    const size_t length =
        OffsetOfCodePoint(object.str().substr(begin), static_cast<size_t>(stop - start));
    return Slice(object, begin, begin + length);
  }
  std::vector<size_t> offsets;  // of the code points
  if (object.is_string()) {
    EW_RETURN_IF_ERROR(Step(size));
    for (size_t at = 0; at < object.str().size(); at += DecodeAt(object.str(), at).length) {
      offsets.push_back(at);
    }
    offsets.push_back(object.str().size());
  }
  MarkedTextBuilder text = Builder();
  std::vector<Value> items;
  // Counted in steps from start, so that a huge step cannot overflow.
  const int64_t span = step > 0 ? stop - start : start - stop;
  const uint64_t stride = step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
  for (uint64_t moved = 0; span > 0 && moved < static_cast<uint64_t>(span); moved += stride) {
    const auto i = static_cast<size_t>(step > 0 ? start + static_cast<int64_t>(moved)
                                                : start - static_cast<int64_t>(moved));
    if (object.is_string()) {
      text.Append(object.text(), offsets[i], offsets[i + 1]);
    } else {
      items.push_back(object.items()[i]);
    }
    if (stride > static_cast<uint64_t>(span)) break;
  }
  if (object.is_string()) return NewText(std::move(text), object.safe());
  return object.kind() == Kind::kTuple ? NewTuple(std::move(items)) : NewList(std::move(items));
}

Result<CallArgs> Interpreter::EvalArgs(const CallSpec& spec) {
  CallArgs args;
  for (const ExprPtr& expr : spec.positional) {
    EW_ASSIGN(Value value, Eval(*expr));
    args.positional.push_back(std::move(value));
  }
  for (const auto& [name, expr] : spec.named) {
    EW_ASSIGN(Value value, Eval(*expr));
    args.named.emplace_back(name, std::move(value));
  }
  if (spec.star) {
    EW_ASSIGN(const Value value, Eval(*spec.star));
    EW_ASSIGN(std::vector<Value> items, Iterate(value));
    EW_RETURN_IF_ERROR(Step(static_cast<int64_t>(items.size())));
    for (Value& item : items) args.positional.push_back(std::move(item));
  }
  if (spec.star_star) {
    EW_ASSIGN(const Value value, Eval(*spec.star_star));
    if (!value.is_dict()) {
      return ValueError(fmt::format("argument after ** must be a dict, not {}", TypeName(value)));
    }
    EW_RETURN_IF_ERROR(Step(static_cast<int64_t>(value.dict().size())));
    for (const auto& [key, item] : value.dict().entries()) {
      if (!key.is_string()) return ValueError("keywords must be strings");
      args.named.emplace_back(std::string(key.str()), item);
    }
  }
  return args;
}

Result<Value> Interpreter::EvalCall(const CallExpr& expr) {
  EW_ASSIGN(const Value callee, Eval(*expr.callee));
  EW_ASSIGN(CallArgs args, EvalArgs(expr.args));
  line_ = expr.line;
  return Call(callee, args);
}

Result<Value> Interpreter::EvalFilter(const FilterExpr& expr) {
  Value input = block_input_;
  if (expr.input) {
    EW_ASSIGN(input, Eval(*expr.input));
  }
  EW_ASSIGN(CallArgs args, EvalArgs(expr.args));
  line_ = expr.line;
  return ApplyFilter(expr.name, input, args);
}

Result<Value> Interpreter::EvalTest(const TestExpr& expr) {
  EW_ASSIGN(const Value input, Eval(*expr.input));
  EW_ASSIGN(CallArgs args, EvalArgs(expr.args));
  line_ = expr.line;
  EW_ASSIGN(const bool holds, ApplyTest(expr.name, input, args));
  return Value::Bool(holds != expr.negated);
}

}  // namespace edgewise::text::jinja
