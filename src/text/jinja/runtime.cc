#include "text/jinja/runtime.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

namespace {

// What a value costs beside its bytes: its representation and the reference count.
constexpr int64_t kValueOverhead = 96;
constexpr size_t kMaxNamespaces = 10'000;
// Keys that are not strings are searched one by one.
constexpr size_t kMaxOtherKeys = 1000;

}  // namespace

Result<Value> Object::Attribute(Runtime&, std::string_view) { return Value(); }

Result<Value> Namespace::Attribute(Runtime&, std::string_view name) {
  const Value* found = Find(name);
  return found != nullptr ? *found : Value();
}

Result<Value> Macro::Attribute(Runtime& rt, std::string_view name) {
  if (name == "name") return rt.NewString(definition->name);
  return Value();
}

Value* Namespace::Find(std::string_view name) {
  for (auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::Set(std::string_view name, Value value) {
  if (Value* old = Find(name)) {
    *old = std::move(value);
  } else {
    attributes.emplace_back(std::string(name), std::move(value));
  }
}

Status Runtime::Error(ErrorKind kind, std::string_view text) const {
  return TemplateError(kind, line_, text);
}

Status Runtime::Step(int64_t n) {
  steps_ += n;
  if (steps_ <= limits().steps) return Status::Ok();
  return Error(ErrorKind::kLimit, fmt::format("more than {} steps", limits().steps));
}

Status Runtime::Work(int64_t bytes) {
  heap_->work += bytes;
  if (heap_->work <= limits().work_bytes) return Status::Ok();
  return Error(ErrorKind::kLimit,
               fmt::format("strings of more than {} bytes processed", limits().work_bytes));
}

Result<HeapCharge> Runtime::Charge(int64_t bytes) {
  EW_RETURN_IF_ERROR(Work(bytes));
  if (heap_->live + bytes > limits().live_bytes) {
    return Error(ErrorKind::kLimit,
                 fmt::format("values of more than {} bytes in memory", limits().live_bytes));
  }
  return HeapCharge(heap_, bytes);
}

Result<Value> Runtime::NewText(MarkedTextBuilder builder, bool safe) {
  if (builder.overflow()) {
    return Error(ErrorKind::kLimit,
                 fmt::format("a string of more than {} bytes", limits().output_bytes));
  }
  MarkedText text = builder.Take();
  const auto bytes = static_cast<int64_t>(text.bytes.capacity()) +
                     static_cast<int64_t>(text.runs.capacity() * sizeof(TextRun));
  EW_ASSIGN(HeapCharge charge, Charge(bytes + kValueOverhead));
  return Value::Text(std::move(text), std::move(charge), safe);
}

Result<Value> Runtime::NewString(std::string bytes) {
  MarkedTextBuilder builder = Builder();
  builder.Append(bytes);
  return NewText(std::move(builder));
}

Result<Value> Runtime::Slice(const Value& text, size_t begin, size_t end) {
  MarkedTextBuilder builder = Builder();
  builder.Append(text.text(), begin, end);
  return NewText(std::move(builder), text.safe());
}

Result<Value> Runtime::NewList(std::vector<Value> items) {
  const auto bytes = static_cast<int64_t>(items.capacity() * sizeof(Value));
  EW_ASSIGN(HeapCharge charge, Charge(bytes + kValueOverhead));
  Value list = Value::List(std::move(items), std::move(charge));
  if (list.depth() > limits().value_depth) {
    return Error(ErrorKind::kLimit,
                 fmt::format("values nested deeper than {} levels", limits().value_depth));
  }
  return list;
}

Result<Value> Runtime::NewTuple(std::vector<Value> items) {
  const auto bytes = static_cast<int64_t>(items.capacity() * sizeof(Value));
  EW_ASSIGN(HeapCharge charge, Charge(bytes + kValueOverhead));
  Value tuple = Value::Tuple(std::move(items), std::move(charge));
  if (tuple.depth() > limits().value_depth) {
    return Error(ErrorKind::kLimit,
                 fmt::format("values nested deeper than {} levels", limits().value_depth));
  }
  return tuple;
}

Result<Value> Runtime::NewDict(std::vector<std::pair<Value, Value>> entries) {
  std::vector<std::pair<Value, Value>> unique;
  std::unordered_map<std::string_view, size_t> strings;
  std::vector<size_t> others;
  for (auto& [key, value] : entries) {
    if (!Hashable(key)) {
      return ValueError(fmt::format("unhashable type: '{}' as a key", TypeName(key)));
    }
    std::optional<size_t> seen;
    if (key.is_string()) {
      const auto it = strings.find(key.str());
      if (it != strings.end()) seen = it->second;
    } else {
      int64_t work = 0;
      for (const size_t i : others) {
        if (Equals(unique[i].first, key, &work)) seen = i;
      }
    }
    if (seen) {
      unique[*seen].second = std::move(value);
      continue;
    }
    if (key.is_string()) {
      strings.emplace(key.str(), unique.size());  // the key's storage is shared, it stays in place
    } else {
      others.push_back(unique.size());
      if (others.size() > kMaxOtherKeys) {
        return Error(ErrorKind::kLimit, "a dict of more than 1000 keys that are not strings");
      }
    }
    unique.emplace_back(key, std::move(value));
  }
  const auto bytes = static_cast<int64_t>(unique.capacity() * 2 * sizeof(Value));
  EW_ASSIGN(HeapCharge charge, Charge(2 * bytes + kValueOverhead));
  Value dict = Value::MakeDict(std::move(unique), std::move(charge));
  if (dict.depth() > limits().value_depth) {
    return Error(ErrorKind::kLimit,
                 fmt::format("values nested deeper than {} levels", limits().value_depth));
  }
  return dict;
}

Value Runtime::NewFunction(std::string name, Builtin::Function function) {
  return Value::Of(std::make_shared<Builtin>(std::move(name), std::move(function)));
}

Result<std::shared_ptr<Namespace>> Runtime::NewNamespace() {
  if (namespaces_.size() >= kMaxNamespaces) {
    return Error(ErrorKind::kLimit, fmt::format("more than {} namespaces", kMaxNamespaces));
  }
  namespaces_.push_back(std::make_shared<Namespace>());
  return namespaces_.back();
}

Result<std::vector<Value>> Runtime::Iterate(const Value& v) {
  std::vector<Value> out;
  switch (v.kind()) {
    case Kind::kUndefined:
      return out;
    case Kind::kList:
    case Kind::kTuple:
      EW_RETURN_IF_ERROR(Work(static_cast<int64_t>(v.items().size() * sizeof(Value))));
      return v.items();
    case Kind::kDict:
      EW_RETURN_IF_ERROR(Work(static_cast<int64_t>(v.dict().size() * sizeof(Value))));
      for (const auto& entry : v.dict().entries()) out.push_back(entry.first);
      return out;
    case Kind::kString:
      for (size_t at = 0; at < v.str().size();) {
        const size_t n = DecodeAt(v.str(), at).length;
        EW_RETURN_IF_ERROR(Step());
        EW_ASSIGN(Value character, Slice(v, at, at + n));
        out.push_back(std::move(character));
        at += n;
      }
      return out;
    default:
      return ValueError(fmt::format("'{}' object is not iterable", TypeName(v)));
  }
}

Result<bool> Runtime::AreEqual(const Value& a, const Value& b) {
  int64_t work = 0;
  const bool equal = Equals(a, b, &work);
  EW_RETURN_IF_ERROR(Work(work * 8));
  return equal;
}

Result<int> Runtime::Order(const Value& a, const Value& b) {
  int64_t work = 0;
  const std::optional<int> order = Compare(a, b, &work);
  EW_RETURN_IF_ERROR(Work(work * 8));
  if (order) return *order;
  return ValueError(
      fmt::format("'<' not supported between '{}' and '{}'", TypeName(a), TypeName(b)));
}

Result<bool> Runtime::Contains(const Value& container, const Value& item) {
  switch (container.kind()) {
    case Kind::kUndefined:
      return false;
    case Kind::kString:
      if (!item.is_string()) {
        return ValueError(
            fmt::format("'in <string>' requires string as left operand, not {}", TypeName(item)));
      }
      EW_RETURN_IF_ERROR(Work(static_cast<int64_t>(container.str().size())));
      return FindBytes(container.str(), item.str(), 0) != std::string_view::npos;
    case Kind::kList:
    case Kind::kTuple:
      for (const Value& candidate : container.items()) {
        EW_ASSIGN(const bool equal, AreEqual(candidate, item));
        if (equal) return true;
      }
      return false;
    case Kind::kDict:
      if (item.is_undefined()) return false;
      if (!Hashable(item)) {
        return ValueError(fmt::format("unhashable type: '{}'", TypeName(item)));
      }
      return container.dict().Find(item) != nullptr;
    default:
      return ValueError(fmt::format("argument of type '{}' is not iterable", TypeName(container)));
  }
}

Status Runtime::AppendText(const Value& v, MarkedTextBuilder* out) {
  if (!AppendStr(v, out)) return Error(ErrorKind::kLimit, "a value is nested too deep to print");
  if (out->overflow()) {
    return Error(ErrorKind::kLimit,
                 fmt::format("text of more than {} bytes", limits().output_bytes));
  }
  return Status::Ok();
}

Result<Value> Runtime::ToText(const Value& v) {
  if (v.is_string()) return v;
  MarkedTextBuilder builder = Builder();
  EW_RETURN_IF_ERROR(AppendText(v, &builder));
  return NewText(std::move(builder));
}

Result<Value> Runtime::GetAttribute(const Value& v, std::string_view name) {
  if (name.starts_with("__")) {
    return Error(ErrorKind::kForbidden,
                 fmt::format("access to '{}' of a {} object", name.substr(0, 40), TypeName(v)));
  }
  switch (v.kind()) {
    case Kind::kUndefined:
      return ValueError(v.why_undefined());
    case Kind::kString: {
      EW_ASSIGN(Value method, StringMethod(*this, v, name));
      if (!method.is_undefined()) return method;
      break;
    }
    case Kind::kDict: {
      EW_ASSIGN(Value method, ContainerMethod(*this, v, name));
      if (!method.is_undefined()) return method;
      if (const Value* found = v.dict().Find(name)) return *found;
      break;
    }
    case Kind::kList:
    case Kind::kTuple: {
      EW_ASSIGN(Value method, ContainerMethod(*this, v, name));
      if (!method.is_undefined()) return method;
      break;
    }
    case Kind::kObject: {
      EW_ASSIGN(Value found, v.object()->Attribute(*this, name));
      if (!found.is_undefined()) return found;
      break;
    }
    default:
      break;
  }
  return Value::Undefined(fmt::format("'{} object' has no attribute '{}'", TypeName(v), name));
}

Result<Value> Runtime::GetItem(const Value& v, const Value& key) {
  if (v.is_undefined()) {
    return ValueError(v.why_undefined());
  }
  if (v.is_dict()) {
    if (!Hashable(key)) {
      return Value::Undefined(fmt::format("a key of type {}", TypeName(key)));
    }
    if (const Value* found = v.dict().Find(key)) return *found;
  } else if (key.is_integral() && (v.is_sequence() || v.is_string())) {
    int64_t i = key.integer();
    const auto size =
        static_cast<int64_t>(v.is_string() ? CodePointCount(v.str()) : v.items().size());
    if (v.is_string()) EW_RETURN_IF_ERROR(Work(static_cast<int64_t>(v.str().size())));
    if (i < 0) i += size;
    if (i >= 0 && i < size) {
      if (!v.is_string()) return v.items()[static_cast<size_t>(i)];
      const size_t at = OffsetOfCodePoint(v.str(), static_cast<size_t>(i));
      return Slice(v, at, at + DecodeAt(v.str(), at).length);
    }
    return Value::Undefined(fmt::format("{} object has no element {}", TypeName(v), i));
  }
  if (key.is_string()) return GetAttribute(v, key.str());
  return Value::Undefined(fmt::format("{} object has no such element", TypeName(v)));
}

Result<Value> Runtime::GetPath(const Value& v, std::string_view path,
                               const std::optional<Value>& fallback) {
  Value at = v;
  while (true) {
    const size_t dot = path.find('.');
    const std::string_view part = path.substr(0, dot);
    int64_t number = 0;
    const auto parsed = std::from_chars(part.data(), part.data() + part.size(), number);
    const bool is_number =
        !part.empty() && parsed.ec == std::errc() && parsed.ptr == part.data() + part.size();
    if (is_number) {
      EW_ASSIGN(at, GetItem(at, Value::Int(number)));
    } else {
      EW_ASSIGN(Value key, NewString(std::string(part)));
      EW_ASSIGN(at, GetItem(at, key));
    }
    if (fallback && at.is_undefined()) at = *fallback;
    if (dot == std::string_view::npos) return at;
    path.remove_prefix(dot + 1);
  }
}

Result<Value> Runtime::ApplyFilter(std::string_view name, const Value& input, CallArgs& args) {
  EW_RETURN_IF_ERROR(Step());
  FilterFunction filter = FindTextFilter(name);
  if (filter == nullptr) filter = FindSequenceFilter(name);
  if (filter == nullptr) filter = FindNumberFilter(name);
  if (filter == nullptr) {
    return Error(ErrorKind::kSyntax, fmt::format("no filter named '{}'", name.substr(0, 40)));
  }
  return filter(*this, input, args);
}

Result<bool> Runtime::ApplyTest(std::string_view name, const Value& input, CallArgs& args) {
  EW_RETURN_IF_ERROR(Step());
  if (const TestFunction test = FindTest(name)) return test(*this, input, args);
  return Error(ErrorKind::kSyntax, fmt::format("no test named '{}'", name.substr(0, 40)));
}

Result<BoundArgs> Runtime::Bind(std::string_view function, CallArgs& args,
                                std::initializer_list<std::string_view> parameters) const {
  BoundArgs bound(parameters.size());
  if (args.positional.size() > parameters.size()) {
    return ValueError(fmt::format("{}() takes at most {} arguments, {} given", function,
                                  parameters.size(), args.positional.size()));
  }
  for (size_t i = 0; i < args.positional.size(); ++i) bound[i] = args.positional[i];
  for (const auto& [name, value] : args.named) {
    const auto it = std::find(parameters.begin(), parameters.end(), name);
    if (it == parameters.end()) {
      return ValueError(fmt::format("{}() has no argument '{}'", function, name.substr(0, 40)));
    }
    auto& slot = bound[static_cast<size_t>(it - parameters.begin())];
    if (slot) return ValueError(fmt::format("{}() got '{}' twice", function, name));
    slot = value;
  }
  return bound;
}

Result<int64_t> Runtime::IntArg(const std::optional<Value>& v, int64_t fallback,
                                std::string_view what) const {
  if (!v) return fallback;
  if (v->is_integral()) return v->integer();
  return ValueError(fmt::format("{} must be an integer, not {}", what, TypeName(*v)));
}

Result<Value> Runtime::TextArg(const std::optional<Value>& v, std::string_view what) const {
  if (!v) return ValueError(fmt::format("{} is missing", what));
  if (v->is_string()) return *v;
  return ValueError(fmt::format("{} must be a string, not {}", what, TypeName(*v)));
}

}  // namespace edgewise::text::jinja
