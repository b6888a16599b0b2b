// Tests: what stands behind `is`.
#include <fmt/format.h>

#include "text/jinja/runtime.h"
#include "text/jinja/string_ops.h"

namespace edgewise::text::jinja {

namespace {

// A test of the value alone.
template <auto kHolds>
Result<bool> Plain(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("this test", args, {}).status());
  return kHolds(in);
}

Result<Value> OneArg(Runtime& rt, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("this test", args, {"other"}));
  if (!a[0]) return rt.ValueError("this test needs an argument");
  return *a[0];
}

template <bool kEqual>
Result<bool> Equal(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(const Value other, OneArg(rt, args));
  EW_ASSIGN(const bool equal, rt.AreEqual(in, other));
  return equal == kEqual;
}

template <bool kLess, bool kOrEqual>
Result<bool> Ordered(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(const Value other, OneArg(rt, args));
  EW_ASSIGN(const int order, rt.Order(in, other));
  return order == 0 ? kOrEqual : (order < 0) == kLess;
}

Result<bool> In(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(const Value container, OneArg(rt, args));
  return rt.Contains(container, in);
}

Result<bool> SameAs(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(const Value other, OneArg(rt, args));
  return in.SameAs(other);
}

template <int kRemainder>
Result<bool> Parity(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("this test", args, {}).status());
  EW_ASSIGN(const Value remainder, Arithmetic(rt, ArithmeticOp::kMod, in, Value::Int(2)));
  return rt.AreEqual(remainder, Value::Int(kRemainder));
}

Result<bool> DivisibleBy(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(const Value other, OneArg(rt, args));
  EW_ASSIGN(const Value remainder, Arithmetic(rt, ArithmeticOp::kMod, in, other));
  return rt.AreEqual(remainder, Value::Int(0));
}

template <auto kChange>
Result<bool> Cased(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("this test", args, {}).status());
  EW_ASSIGN(const Value text, rt.ToText(in));
  EW_ASSIGN(const Value changed, kChange(rt, text));
  // As Python's isupper: there is a letter with case, and none of the other case.
  EW_ASSIGN(const Value upper, UpperText(rt, text));
  EW_ASSIGN(const Value lower, LowerText(rt, text));
  return changed.str() == text.str() && upper.str() != lower.str();
}

Result<bool> IsFilter(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("this test", args, {}).status());
  if (!in.is_string()) return false;
  return FindTextFilter(in.str()) != nullptr || FindSequenceFilter(in.str()) != nullptr ||
         FindNumberFilter(in.str()) != nullptr;
}

Result<bool> IsTest(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("this test", args, {}).status());
  return in.is_string() && FindTest(in.str()) != nullptr;
}

bool Defined(const Value& v) { return !v.is_undefined(); }
bool Undefined(const Value& v) { return v.is_undefined(); }
bool None(const Value& v) { return v.is_none(); }
bool Boolean(const Value& v) { return v.kind() == Kind::kBool; }
bool True(const Value& v) { return Boolean(v) && v.integer() != 0; }
bool False(const Value& v) { return Boolean(v) && v.integer() == 0; }
bool Integer(const Value& v) { return v.kind() == Kind::kInt; }
bool Float(const Value& v) { return v.kind() == Kind::kFloat; }
bool Number(const Value& v) { return v.is_number(); }
bool String(const Value& v) { return v.is_string(); }
bool Mapping(const Value& v) { return v.is_dict(); }
// Undefined values can be iterated over and have a length of 0.
bool Iterable(const Value& v) {
  return v.is_string() || v.is_sequence() || v.is_dict() || v.is_undefined();
}
// An undefined value can be called as far as this test knows; the call then fails.
bool Callable(const Value& v) {
  return v.is_undefined() || (v.kind() == Kind::kObject && v.object()->callable());
}
bool Escaped(const Value& v) { return v.is_string() && v.safe(); }

struct Entry {
  std::string_view name;
  TestFunction test;
};
constexpr Entry kTests[] = {
    {"defined", Plain<Defined>},
    {"undefined", Plain<Undefined>},
    {"none", Plain<None>},
    {"boolean", Plain<Boolean>},
    {"true", Plain<True>},
    {"false", Plain<False>},
    {"integer", Plain<Integer>},
    {"float", Plain<Float>},
    {"number", Plain<Number>},
    {"string", Plain<String>},
    {"mapping", Plain<Mapping>},
    {"iterable", Plain<Iterable>},
    {"sequence", Plain<Iterable>},
    {"callable", Plain<Callable>},
    {"escaped", Plain<Escaped>},
    {"eq", Equal<true>},
    {"==", Equal<true>},
    {"equalto", Equal<true>},
    {"ne", Equal<false>},
    {"!=", Equal<false>},
    {"lt", Ordered<true, false>},
    {"<", Ordered<true, false>},
    {"lessthan", Ordered<true, false>},
    {"le", Ordered<true, true>},
    {"<=", Ordered<true, true>},
    {"gt", Ordered<false, false>},
    {">", Ordered<false, false>},
    {"greaterthan", Ordered<false, false>},
    {"ge", Ordered<false, true>},
    {">=", Ordered<false, true>},
    {"in", In},
    {"sameas", SameAs},
    {"even", Parity<0>},
    {"odd", Parity<1>},
    {"divisibleby", DivisibleBy},
    {"upper", Cased<UpperText>},
    {"lower", Cased<LowerText>},
    {"filter", IsFilter},
    {"test", IsTest},
};

}  // namespace

TestFunction FindTest(std::string_view name) {
  for (const Entry& entry : kTests) {
    if (entry.name == name) return entry.test;
  }
  return nullptr;
}

}  // namespace edgewise::text::jinja
