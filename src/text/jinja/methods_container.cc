// Methods of lists, tuples and dicts. Those that would change their object are forbidden, as in
// the sandbox that transformers renders in.
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/runtime.h"

namespace edgewise::text::jinja {

namespace {

Result<Value> DictItems(Runtime& rt, const Value& dict) {
  std::vector<Value> items;
  for (const auto& [key, value] : dict.dict().entries()) {
    EW_RETURN_IF_ERROR(rt.Step());
    EW_ASSIGN(Value pair, rt.NewTuple({key, value}));
    items.push_back(std::move(pair));
  }
  return rt.NewList(std::move(items));
}

Result<Value> DictMethod(Runtime& rt, const Value& dict, std::string_view name) {
  if (name == "items") {
    return rt.NewFunction("items", [dict](Runtime& r, CallArgs& args) -> Result<Value> {
      EW_RETURN_IF_ERROR(r.Bind("items", args, {}).status());
      return DictItems(r, dict);
    });
  }
  if (name == "keys" || name == "values") {
    return rt.NewFunction(
        std::string(name),
        [dict, keys = name == "keys"](Runtime& r, CallArgs& args) -> Result<Value> {
          EW_RETURN_IF_ERROR(r.Bind(keys ? "keys" : "values", args, {}).status());
          std::vector<Value> out;
          for (const auto& [key, value] : dict.dict().entries()) out.push_back(keys ? key : value);
          return r.NewList(std::move(out));
        });
  }
  if (name == "get") {
    return rt.NewFunction("get", [dict](Runtime& r, CallArgs& args) -> Result<Value> {
      EW_ASSIGN(BoundArgs a, r.Bind("get", args, {"key", "default"}));
      if (!a[0]) return r.ValueError("get() needs a key");
      if (!Hashable(*a[0])) {
        return r.ValueError(fmt::format("unhashable type: '{}'", TypeName(*a[0])));
      }
      if (const Value* found = dict.dict().Find(*a[0])) return *found;
      return a[1] ? *a[1] : Value::None();
    });
  }
  if (name == "copy") {
    return rt.NewFunction("copy", [dict](Runtime&, CallArgs&) { return Result<Value>(dict); });
  }
  return Value();
}

Result<Value> ListMethod(Runtime& rt, const Value& list, std::string_view name) {
  if (name == "count" || name == "index") {
    return rt.NewFunction(
        std::string(name),
        [list, count = name == "count"](Runtime& r, CallArgs& args) -> Result<Value> {
          EW_ASSIGN(BoundArgs a, r.Bind(count ? "count" : "index", args, {"value"}));
          if (!a[0]) return r.ValueError("a value is missing");
          int64_t n = 0;
          for (size_t i = 0; i < list.items().size(); ++i) {
            EW_ASSIGN(const bool equal, r.AreEqual(list.items()[i], *a[0]));
            if (equal && !count) return Value::Int(static_cast<int64_t>(i));
            n += equal ? 1 : 0;
          }
          if (!count) return r.ValueError("the value is not in the list");
          return Value::Int(n);
        });
  }
  if (name == "copy" && list.kind() == Kind::kList) {
    return rt.NewFunction("copy", [list](Runtime&, CallArgs&) { return Result<Value>(list); });
  }
  return Value();
}

}  // namespace

Result<Value> ContainerMethod(Runtime& rt, const Value& container, std::string_view name) {
  static constexpr std::string_view kListChanges[] = {"append", "clear",  "pop",  "reverse",
                                                      "insert", "extend", "sort", "remove"};
  static constexpr std::string_view kDictChanges[] = {"clear", "pop", "popitem", "setdefault",
                                                      "update"};
  const auto forbidden = [&](const auto& names) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
  };
  const bool changes = container.is_dict()               ? forbidden(kDictChanges)
                       : container.kind() == Kind::kList ? forbidden(kListChanges)
                                                         : false;
  if (changes && !(container.is_dict() && container.dict().Find(name) != nullptr)) {
    return rt.Error(ErrorKind::kForbidden, fmt::format("'{}' changes a {}; use a namespace instead",
                                                       name, TypeName(container)));
  }
  return container.is_dict() ? DictMethod(rt, container, name) : ListMethod(rt, container, name);
}

}  // namespace edgewise::text::jinja
