// The values of the template language: Python's, as far as chat templates use them. Values are
// immutable and shared; only namespaces and loop helpers (kObject) have state.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "text/jinja/limits.h"
#include "text/jinja/marked_text.h"

namespace edgewise::text::jinja {

enum class Kind : uint8_t {
  kUndefined,  // a missing variable or key: prints as "", most other uses are errors
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  kObject,  // namespaces, macros, builtin functions, bound methods, loop
};

class Value;
class Dict;
class Runtime;

// Base of everything with identity or state; the interpreter knows the subclasses.
class Object {
 public:
  virtual ~Object() = default;
  // As Python names the type, for messages and printing.
  virtual std::string_view type_name() const = 0;
  virtual bool callable() const { return false; }
  // The attribute of that name; an undefined value when there is none.
  virtual Result<Value> Attribute(Runtime& rt, std::string_view name);
};

class Value {
 public:
  Value() = default;  // undefined
  // `why` is what an operation that needs a value reports: "'x' is undefined".
  static Value Undefined(std::string why);
  static Value None() { return Value(Kind::kNone); }
  static Value Bool(bool b);
  static Value Int(int64_t i);
  static Value Float(double f);
  // `safe`: the result of the `safe` or `escape` filter (markupsafe's Markup).
  static Value Text(MarkedText text, HeapCharge charge = {}, bool safe = false);
  static Value String(std::string bytes) { return Text(MarkedText(std::move(bytes))); }
  static Value List(std::vector<Value> items, HeapCharge charge = {});
  static Value Tuple(std::vector<Value> items, HeapCharge charge = {});
  static Value MakeDict(std::vector<std::pair<Value, Value>> entries, HeapCharge charge = {});
  static Value Of(std::shared_ptr<Object> object);

  Kind kind() const { return kind_; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_dict() const { return kind_ == Kind::kDict; }
  bool is_sequence() const { return kind_ == Kind::kList || kind_ == Kind::kTuple; }
  bool is_integral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool is_number() const { return is_integral() || kind_ == Kind::kFloat; }

  // Each REQUIRES the kind that it names.
  int64_t integer() const { return int_; }  // kInt, kBool
  double number() const { return kind_ == Kind::kFloat ? float_ : static_cast<double>(int_); }
  const MarkedText& text() const;
  std::string_view str() const { return text().bytes; }
  bool safe() const;
  const std::vector<Value>& items() const;  // kList, kTuple
  const Dict& dict() const;
  Object* object() const { return static_cast<Object*>(ref_.get()); }
  std::string_view why_undefined() const;
  // Whether both are the same object in memory ("is" in Python).
  bool SameAs(const Value& other) const;

  // How deep lists and dicts nest: 0 for scalars.
  int depth() const;

 private:
  explicit Value(Kind kind) : kind_(kind) {}
  Kind kind_ = Kind::kUndefined;
  union {
    int64_t int_ = 0;
    double float_;
  };
  std::shared_ptr<void> ref_;
};

// Insertion-ordered, as in Python. Keys are unique.
class Dict {
 public:
  explicit Dict(std::vector<std::pair<Value, Value>> entries);
  const std::vector<std::pair<Value, Value>>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  // The value, or null.
  const Value* Find(std::string_view key) const;
  const Value* Find(const Value& key) const;

 private:
  std::vector<std::pair<Value, Value>> entries_;
  std::unordered_map<std::string_view, size_t> index_;  // string keys, when there are many
};

// Python's type name, for messages: "str", "NoneType", "dict", ...
std::string_view TypeName(const Value& v);
bool Truthy(const Value& v);
// a == b, with Python's equality across numbers. *work grows by the bytes and items looked at.
bool Equals(const Value& a, const Value& b, int64_t* work);
// Whether a value may be a dict key (strings, numbers, None, tuples of such).
bool Hashable(const Value& v);
// <0, 0, >0; nothing when the two have no order (Python's TypeError).
std::optional<int> Compare(const Value& a, const Value& b, int64_t* work);

// str(v) and repr(v). False: nested too deep (a namespace that contains itself).
bool AppendStr(const Value& v, MarkedTextBuilder* out);
bool AppendRepr(const Value& v, MarkedTextBuilder* out, int depth = 0);
std::string FloatRepr(double f);

// A copy in which every byte of every string (keys too) carries `marks`.
Value WithMarks(const Value& v, uint8_t marks);

}  // namespace edgewise::text::jinja
