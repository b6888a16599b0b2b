// Arithmetic with Python's rules.
#include <fmt/format.h>

#include <cmath>

#include "base/checked.h"
#include "text/jinja/runtime.h"

namespace edgewise::text::jinja {

namespace {

const char* Symbol(ArithmeticOp op) {
  switch (op) {
    case ArithmeticOp::kAdd:
      return "+";
    case ArithmeticOp::kSub:
      return "-";
    case ArithmeticOp::kMul:
      return "*";
    case ArithmeticOp::kDiv:
      return "/";
    case ArithmeticOp::kFloorDiv:
      return "//";
    case ArithmeticOp::kMod:
      return "%";
    case ArithmeticOp::kPow:
      return "**";
  }
  return "?";
}

Status TooLarge(Runtime& rt) {
  return rt.Error(ErrorKind::kLimit, "an integer does not fit 64 bits");
}

Result<Value> IntegerPower(Runtime& rt, int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return rt.ValueError("zero to a negative power");
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0) {
      const auto next = CheckedMul(result, base);
      if (!next) return TooLarge(rt);
      result = *next;
    }
    exponent >>= 1;
    if (exponent == 0) break;
    const auto square = CheckedMul(base, base);
    if (!square) return TooLarge(rt);
    base = *square;
  }
  return Value::Int(result);
}

Result<Value> Integers(Runtime& rt, ArithmeticOp op, int64_t a, int64_t b) {
  int64_t out = 0;
  switch (op) {
    case ArithmeticOp::kAdd:
      if (__builtin_add_overflow(a, b, &out)) return TooLarge(rt);
      return Value::Int(out);
    case ArithmeticOp::kSub:
      if (__builtin_sub_overflow(a, b, &out)) return TooLarge(rt);
      return Value::Int(out);
    case ArithmeticOp::kMul:
      if (__builtin_mul_overflow(a, b, &out)) return TooLarge(rt);
      return Value::Int(out);
    case ArithmeticOp::kPow:
      return IntegerPower(rt, a, b);
    default:
      break;
  }
  if (b == 0) return rt.ValueError("division by zero");
  if (op == ArithmeticOp::kDiv) {
    return Value::Float(static_cast<double>(a) / static_cast<double>(b));
  }
  if (a == INT64_MIN && b == -1) {
    return op == ArithmeticOp::kMod ? Result<Value>(Value::Int(0)) : TooLarge(rt);
  }
  int64_t quotient = a / b;
  int64_t remainder = a % b;
  if (remainder != 0 && (remainder < 0) != (b < 0)) {  // Python rounds down
    --quotient;
    remainder += b;
  }
  return Value::Int(op == ArithmeticOp::kMod ? remainder : quotient);
}

Result<Value> Floats(Runtime& rt, ArithmeticOp op, double a, double b) {
  switch (op) {
    case ArithmeticOp::kAdd:
      return Value::Float(a + b);
    case ArithmeticOp::kSub:
      return Value::Float(a - b);
    case ArithmeticOp::kMul:
      return Value::Float(a * b);
    case ArithmeticOp::kPow:
      return Value::Float(std::pow(a, b));
    default:
      break;
  }
  if (b == 0) return rt.ValueError("division by zero");
  if (op == ArithmeticOp::kDiv) return Value::Float(a / b);
  if (op == ArithmeticOp::kFloorDiv) return Value::Float(std::floor(a / b));
  double remainder = std::fmod(a, b);
  if (remainder != 0 && (remainder < 0) != (b < 0)) remainder += b;
  return Value::Float(remainder);
}

// text * n and list * n; a negative n counts as 0.
Result<Value> Repeat(Runtime& rt, const Value& v, int64_t n) {
  if (n < 0) n = 0;
  if (v.is_string()) {
    const auto bytes = CheckedMul(static_cast<int64_t>(v.str().size()), n);
    if (!bytes || *bytes > rt.limits().output_bytes) {
      return rt.Error(ErrorKind::kLimit,
                      fmt::format("a string of more than {} bytes", rt.limits().output_bytes));
    }
    MarkedTextBuilder builder = rt.Builder();
    if (*bytes > 0) {
      for (int64_t i = 0; i < n; ++i) builder.Append(v.text());
    }
    return rt.NewText(std::move(builder), v.safe());
  }
  const auto count = CheckedMul(static_cast<int64_t>(v.items().size()), n);
  if (!count || *count > rt.limits().live_bytes / static_cast<int64_t>(sizeof(Value))) {
    return rt.Error(ErrorKind::kLimit, "a list repeated too often");
  }
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(*count));
  if (*count > 0) {
    for (int64_t i = 0; i < n; ++i) items.insert(items.end(), v.items().begin(), v.items().end());
  }
  return v.kind() == Kind::kTuple ? rt.NewTuple(std::move(items)) : rt.NewList(std::move(items));
}

// markupsafe: what joins a safe string is escaped first.
void AppendEscaped(const MarkedText& text, MarkedTextBuilder* out) {
  ForEachRun(text, 0, text.bytes.size(), [&](size_t begin, size_t end, uint8_t marks) {
    std::string piece;
    for (size_t i = begin; i < end; ++i) {
      switch (text.bytes[i]) {
        case '&':
          piece += "&amp;";
          break;
        case '<':
          piece += "&lt;";
          break;
        case '>':
          piece += "&gt;";
          break;
        case '"':
          piece += "&#34;";
          break;
        case '\'':
          piece += "&#39;";
          break;
        default:
          piece += text.bytes[i];
      }
    }
    out->Append(piece, marks);
  });
}

Result<Value> Add(Runtime& rt, const Value& a, const Value& b) {
  if (a.is_string() && b.is_string()) {
    MarkedTextBuilder builder = rt.Builder();
    const bool safe = a.safe() || b.safe();
    for (const Value* v : {&a, &b}) {
      if (safe && !v->safe()) {
        AppendEscaped(v->text(), &builder);
      } else {
        builder.Append(v->text());
      }
    }
    return rt.NewText(std::move(builder), safe);
  }
  if (a.is_string()) {
    return rt.ValueError(fmt::format("can only concatenate str (not \"{}\") to str", TypeName(b)));
  }
  if (a.is_sequence() && a.kind() == b.kind()) {
    std::vector<Value> items = a.items();
    items.insert(items.end(), b.items().begin(), b.items().end());
    return a.kind() == Kind::kTuple ? rt.NewTuple(std::move(items)) : rt.NewList(std::move(items));
  }
  return rt.ValueError(
      fmt::format("unsupported operand type(s) for +: '{}' and '{}'", TypeName(a), TypeName(b)));
}

}  // namespace

Result<Value> EscapeHtml(Runtime& rt, const Value& text) {
  MarkedTextBuilder builder = rt.Builder();
  AppendEscaped(text.text(), &builder);
  return rt.NewText(std::move(builder), /*safe=*/true);
}

Result<Value> Arithmetic(Runtime& rt, ArithmeticOp op, const Value& a, const Value& b) {
  if (a.is_undefined()) return rt.ValueError(a.why_undefined());
  if (b.is_undefined()) return rt.ValueError(b.why_undefined());
  if (a.is_integral() && b.is_integral()) return Integers(rt, op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return Floats(rt, op, a.number(), b.number());
  if (op == ArithmeticOp::kAdd) return Add(rt, a, b);
  if (op == ArithmeticOp::kMul) {
    if ((a.is_string() || a.is_sequence()) && b.is_integral()) return Repeat(rt, a, b.integer());
    if ((b.is_string() || b.is_sequence()) && a.is_integral()) return Repeat(rt, b, a.integer());
  }
  if (op == ArithmeticOp::kMod && a.is_string()) return PercentFormat(rt, a, b);
  return rt.ValueError(fmt::format("unsupported operand type(s) for {}: '{}' and '{}'", Symbol(op),
                                   TypeName(a), TypeName(b)));
}

}  // namespace edgewise::text::jinja
