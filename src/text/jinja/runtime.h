// What filters, tests, methods and the interpreter share while one template is rendered: the
// budget, the making of values within it, and calls back into the interpreter.
#pragma once

#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/jinja/ast.h"
#include "text/jinja/limits.h"
#include "text/jinja/value.h"

namespace edgewise::text::jinja {

struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// namespace(): the only thing that a template can change.
class Namespace : public Object {
 public:
  std::string_view type_name() const override { return "Namespace"; }
  Result<Value> Attribute(Runtime& rt, std::string_view name) override;
  Value* Find(std::string_view name);
  void Set(std::string_view name, Value value);
  std::vector<std::pair<std::string, Value>> attributes;  // in order of first assignment
};

// A function of this program: a global (range), a method bound to its object, loop.cycle ...
class Builtin : public Object {
 public:
  using Function = std::function<Result<Value>(Runtime&, CallArgs&)>;
  Builtin(std::string name, Function function)
      : name_(std::move(name)), function_(std::move(function)) {}
  std::string_view type_name() const override { return "builtin function"; }
  bool callable() const override { return true; }
  const std::string& name() const { return name_; }
  Result<Value> Call(Runtime& rt, CallArgs& args) const { return function_(rt, args); }

 private:
  std::string name_;
  Function function_;
};

struct Scope;

class Macro : public Object {
 public:
  Macro(const MacroStmt* d, Scope* s) : definition(d), scope(s) {}
  std::string_view type_name() const override { return "Macro"; }
  Result<Value> Attribute(Runtime& rt, std::string_view name) override;
  bool callable() const override { return true; }
  const MacroStmt* const definition;
  Scope* const scope;  // where it was defined; kept until the rendering ends
};

// Bound parameters of a builtin; nothing where the caller gave none.
using BoundArgs = std::vector<std::optional<Value>>;

class Runtime {
 public:
  Runtime(const JinjaLimits& limits, std::optional<std::tm> now)
      : heap_(std::make_shared<Heap>(limits)), now_(now) {}
  virtual ~Runtime() = default;

  const JinjaLimits& limits() const { return heap_->limits; }
  const std::optional<std::tm>& now() const { return now_; }

  // Errors carry the line that is being rendered.
  Status Error(ErrorKind kind, std::string_view text) const;
  Status ValueError(std::string_view text) const { return Error(ErrorKind::kValue, text); }

  // Spends from the budget; a limit error when it is used up.
  Status Step(int64_t n = 1);
  Status Work(int64_t bytes);

  MarkedTextBuilder Builder() const { return MarkedTextBuilder(limits().output_bytes); }
  Result<Value> NewText(MarkedTextBuilder builder, bool safe = false);
  Result<Value> NewString(std::string bytes);
  // Bytes [begin, end) of a string.
  Result<Value> Slice(const Value& text, size_t begin, size_t end);
  Result<Value> NewList(std::vector<Value> items);
  Result<Value> NewTuple(std::vector<Value> items);
  // Later entries of the same key win, keeping the first one's place.
  Result<Value> NewDict(std::vector<std::pair<Value, Value>> entries);
  Value NewFunction(std::string name, Builtin::Function function);
  Result<std::shared_ptr<Namespace>> NewNamespace();

  // The items that a loop over v visits: of a list, keys of a dict, characters of a string.
  Result<std::vector<Value>> Iterate(const Value& v);
  Result<bool> AreEqual(const Value& a, const Value& b);
  Result<int> Order(const Value& a, const Value& b);
  Result<bool> Contains(const Value& container, const Value& item);
  // str(v) as a string value; strings are returned as they are.
  Result<Value> ToText(const Value& v);
  Status AppendText(const Value& v, MarkedTextBuilder* out);
  // v.name as Jinja resolves it (attribute, then key). `__...` is forbidden.
  Result<Value> GetAttribute(const Value& v, std::string_view name);
  // v[key] as Jinja resolves it (key, then attribute).
  Result<Value> GetItem(const Value& v, const Value& key);
  // An attribute path of filters: "a.b.0".
  Result<Value> GetPath(const Value& v, std::string_view path,
                        const std::optional<Value>& fallback);

  virtual Result<Value> Call(const Value& callee, CallArgs& args) = 0;
  Result<Value> ApplyFilter(std::string_view name, const Value& input, CallArgs& args);
  Result<bool> ApplyTest(std::string_view name, const Value& input, CallArgs& args);

  // Distributes arguments over named parameters; errors for unknown and surplus ones.
  Result<BoundArgs> Bind(std::string_view function, CallArgs& args,
                         std::initializer_list<std::string_view> parameters) const;
  // The integer of an argument, or `fallback`; an error when it is something else.
  Result<int64_t> IntArg(const std::optional<Value>& v, int64_t fallback,
                         std::string_view what) const;
  Result<Value> TextArg(const std::optional<Value>& v, std::string_view what) const;

 protected:
  int line_ = 0;
  std::shared_ptr<Heap> heap_;
  // Namespaces may hold each other; they are emptied when the rendering ends.
  std::vector<std::shared_ptr<Namespace>> namespaces_;

 private:
  Result<HeapCharge> Charge(int64_t bytes);

  int64_t steps_ = 0;
  std::optional<std::tm> now_;
};

using FilterFunction = Result<Value> (*)(Runtime& rt, const Value& input, CallArgs& args);
using TestFunction = Result<bool> (*)(Runtime& rt, const Value& input, CallArgs& args);
// Null when there is none of that name.
FilterFunction FindTextFilter(std::string_view name);
FilterFunction FindSequenceFilter(std::string_view name);
FilterFunction FindNumberFilter(std::string_view name);
TestFunction FindTest(std::string_view name);

// Bound methods of strings, lists and dicts; an undefined value when there is none of that name.
Result<Value> StringMethod(Runtime& rt, const Value& text, std::string_view name);
Result<Value> ContainerMethod(Runtime& rt, const Value& container, std::string_view name);

// The functions every template has: range, dict, namespace, raise_exception, ...
const std::vector<std::pair<std::string_view, Builtin::Function>>& GlobalFunctions();

// Operators.
Result<Value> Arithmetic(Runtime& rt, ArithmeticOp op, const Value& a, const Value& b);
// A safe string with & < > " ' escaped.
Result<Value> EscapeHtml(Runtime& rt, const Value& text);
// "%s of %d" % values, and str.format.
Result<Value> PercentFormat(Runtime& rt, const Value& format, const Value& values);
Result<Value> BraceFormat(Runtime& rt, const Value& format, CallArgs& args);
// JSON as Python's json.dumps writes it. indent < 0: one line.
struct JsonStyle {
  bool ensure_ascii = false;
  int64_t indent = -1;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
Status AppendJson(Runtime& rt, const Value& v, const JsonStyle& style, MarkedTextBuilder* out);

}  // namespace edgewise::text::jinja
