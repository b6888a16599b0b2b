// Filters on sequences and mappings.
#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>

#include "text/jinja/runtime.h"
#include "text/jinja/string_ops.h"

namespace edgewise::text::jinja {

namespace {

Result<Value> ToList(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("list", args, {}).status());
  EW_ASSIGN(std::vector<Value> items, rt.Iterate(in));
  return rt.NewList(std::move(items));
}

Result<Value> First(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("first", args, {}).status());
  if (in.is_string() && !in.str().empty()) return rt.GetItem(in, Value::Int(0));
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  return items.empty() ? Value::Undefined("no first item, the sequence is empty") : items.front();
}

Result<Value> Last(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("last", args, {}).status());
  if (in.is_string() && !in.str().empty()) return rt.GetItem(in, Value::Int(-1));
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  return items.empty() ? Value::Undefined("no last item, the sequence is empty") : items.back();
}

Result<Value> Items(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("items", args, {}).status());
  if (in.is_undefined()) return rt.NewList({});
  if (!in.is_dict()) return rt.ValueError("Can only get item pairs from a mapping.");
  std::vector<Value> out;
  for (const auto& [key, value] : in.dict().entries()) {
    EW_RETURN_IF_ERROR(rt.Step());
    EW_ASSIGN(Value pair, rt.NewTuple({key, value}));
    out.push_back(std::move(pair));
  }
  return rt.NewList(std::move(out));
}

// A sort key: text compares without case unless asked otherwise.
Result<Value> SortKey(Runtime& rt, const Value& v, bool case_sensitive) {
  return v.is_string() && !case_sensitive ? LowerText(rt, v) : Result<Value>(v);
}

Result<std::vector<size_t>> SortedOrder(Runtime& rt, const std::vector<Value>& keys, bool reverse) {
  std::vector<size_t> order(keys.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  Status failure;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!failure.ok()) return false;
    if (reverse) std::swap(a, b);
    const Status step = rt.Step();
    const Result<int> compared = step.ok() ? rt.Order(keys[a], keys[b]) : Result<int>(step);
    if (!compared.ok()) failure = compared.status();
    return compared.ok() && *compared < 0;
  });
  EW_RETURN_IF_ERROR(failure);
  return order;
}

Result<Value> Sort(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("sort", args, {"reverse", "case_sensitive", "attribute"}));
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  const bool sensitive = a[1] && Truthy(*a[1]);
  std::vector<Value> keys;
  for (const Value& item : items) {
    if (a[2] && !a[2]->is_none()) {
      // "a,b": by a, then by b.
      EW_ASSIGN(const Value paths, rt.ToText(*a[2]));
      EW_ASSIGN(const Value split, SplitAt(rt, paths, ",", -1));
      std::vector<Value> parts;
      for (const Value& path : split.items()) {
        EW_ASSIGN(const Value part, rt.GetPath(item, path.str(), std::nullopt));
        EW_ASSIGN(Value key, SortKey(rt, part, sensitive));
        parts.push_back(std::move(key));
      }
      EW_ASSIGN(Value key, rt.NewList(std::move(parts)));
      keys.push_back(std::move(key));
    } else {
      EW_ASSIGN(Value key, SortKey(rt, item, sensitive));
      keys.push_back(std::move(key));
    }
  }
  EW_ASSIGN(const std::vector<size_t> order, SortedOrder(rt, keys, a[0] && Truthy(*a[0])));
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(items[i]);
  return rt.NewList(std::move(out));
}

Result<Value> DictSort(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("dictsort", args, {"case_sensitive", "by", "reverse"}));
  if (!in.is_dict()) return rt.ValueError("dictsort needs a mapping");
  size_t by = 0;
  if (a[1]) {
    EW_ASSIGN(const Value text, rt.TextArg(a[1], "by"));
    if (text.str() != "key" && text.str() != "value") {
      return rt.ValueError("by must be 'key' or 'value'");
    }
    by = text.str() == "value" ? 1 : 0;
  }
  CallArgs no_args;
  EW_ASSIGN(const Value pairs, Items(rt, in, no_args));
  std::vector<Value> keys;
  for (const Value& pair : pairs.items()) {
    EW_ASSIGN(Value key, SortKey(rt, pair.items()[by], a[0] && Truthy(*a[0])));
    keys.push_back(std::move(key));
  }
  EW_ASSIGN(const std::vector<size_t> order, SortedOrder(rt, keys, a[2] && Truthy(*a[2])));
  std::vector<Value> out;
  for (const size_t i : order) out.push_back(pairs.items()[i]);
  return rt.NewList(std::move(out));
}

template <bool kMax>
Result<Value> Extreme(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind(kMax ? "max" : "min", args, {"case_sensitive", "attribute"}));
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  if (items.empty()) return Value::Undefined("no aggregated item, the sequence is empty");
  std::optional<Value> best_key;
  Value best;
  for (const Value& item : items) {
    EW_RETURN_IF_ERROR(rt.Step());
    Value key = item;
    if (a[1] && !a[1]->is_none()) {
      EW_ASSIGN(const Value path, rt.ToText(*a[1]));
      EW_ASSIGN(key, rt.GetPath(item, path.str(), std::nullopt));
    }
    EW_ASSIGN(key, SortKey(rt, key, a[0] && Truthy(*a[0])));
    if (best_key) {
      EW_ASSIGN(const int order, rt.Order(key, *best_key));
      if (kMax ? order <= 0 : order >= 0) continue;
    }
    best_key = key;
    best = item;
  }
  return best;
}

Result<Value> Unique(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("unique", args, {"case_sensitive", "attribute"}));
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  std::vector<Value> out, keys;
  std::unordered_set<std::string> strings;
  for (const Value& item : items) {
    EW_RETURN_IF_ERROR(rt.Step());
    Value key = item;
    if (a[1] && !a[1]->is_none()) {
      EW_ASSIGN(const Value path, rt.ToText(*a[1]));
      EW_ASSIGN(key, rt.GetPath(item, path.str(), std::nullopt));
    }
    EW_ASSIGN(key, SortKey(rt, key, a[0] && Truthy(*a[0])));
    bool seen = false;
    if (key.is_string()) {
      seen = !strings.insert(std::string(key.str())).second;
    } else {
      for (const Value& other : keys) {
        EW_RETURN_IF_ERROR(rt.Step());
        EW_ASSIGN(const bool equal, rt.AreEqual(other, key));
        seen = seen || equal;
      }
      if (!seen) keys.push_back(key);
    }
    if (!seen) out.push_back(item);
  }
  return rt.NewList(std::move(out));
}

Result<Value> Reverse(Runtime& rt, const Value& in, CallArgs& args) {
  EW_RETURN_IF_ERROR(rt.Bind("reverse", args, {}).status());
  EW_ASSIGN(std::vector<Value> items, rt.Iterate(in));
  std::reverse(items.begin(), items.end());
  if (!in.is_string()) return rt.NewList(std::move(items));
  MarkedTextBuilder out = rt.Builder();
  for (const Value& item : items) out.Append(item.text());
  return rt.NewText(std::move(out));
}

Result<Value> Sum(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("sum", args, {"attribute", "start"}));
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  Value total = a[1] ? *a[1] : Value::Int(0);
  for (Value item : items) {
    EW_RETURN_IF_ERROR(rt.Step());
    if (a[0] && !a[0]->is_none()) {
      EW_ASSIGN(const Value path, rt.ToText(*a[0]));
      EW_ASSIGN(item, rt.GetPath(item, path.str(), std::nullopt));
    }
    EW_ASSIGN(total, Arithmetic(rt, ArithmeticOp::kAdd, total, item));
  }
  return total;
}

Result<Value> Batch(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("batch", args, {"linecount", "fill_with"}));
  EW_ASSIGN(const int64_t size, rt.IntArg(a[0], 0, "linecount"));
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  if (size <= 0 || size > rt.limits().range_items) return rt.ValueError("bad linecount");
  std::vector<Value> rows, row;
  for (const Value& item : items) {
    row.push_back(item);
    if (static_cast<int64_t>(row.size()) < size) continue;
    EW_ASSIGN(Value full, rt.NewList(std::exchange(row, {})));
    rows.push_back(std::move(full));
  }
  if (!row.empty()) {
    if (a[1] && !a[1]->is_none()) row.resize(static_cast<size_t>(size), *a[1]);
    EW_ASSIGN(Value rest, rt.NewList(std::move(row)));
    rows.push_back(std::move(rest));
  }
  return rt.NewList(std::move(rows));
}

Result<Value> SliceInto(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("slice", args, {"slices", "fill_with"}));
  EW_ASSIGN(const int64_t slices, rt.IntArg(a[0], 0, "slices"));
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  if (slices <= 0 || slices > rt.limits().range_items) return rt.ValueError("bad slices");
  const size_t n = static_cast<size_t>(slices);
  const size_t each = items.size() / n, extra = items.size() % n;
  std::vector<Value> out;
  size_t at = 0;
  for (size_t i = 0; i < n; ++i) {
    const size_t count = each + (i < extra ? 1 : 0);
    std::vector<Value> part(items.begin() + static_cast<std::ptrdiff_t>(at),
                            items.begin() + static_cast<std::ptrdiff_t>(at + count));
    at += count;
    if (a[1] && !a[1]->is_none() && i >= extra && extra > 0) part.push_back(*a[1]);
    EW_RETURN_IF_ERROR(rt.Step());
    EW_ASSIGN(Value list, rt.NewList(std::move(part)));
    out.push_back(std::move(list));
  }
  return rt.NewList(std::move(out));
}

Result<Value> GroupBy(Runtime& rt, const Value& in, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("groupby", args, {"attribute", "default", "case_sensitive"}));
  if (!a[0]) return rt.ValueError("groupby needs an attribute");
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  EW_ASSIGN(const Value path, rt.ToText(*a[0]));
  std::vector<Value> values, keys;
  for (const Value& item : items) {
    EW_ASSIGN(Value value, rt.GetPath(item, path.str(), a[1]));
    EW_ASSIGN(Value key, SortKey(rt, value, a[2] && Truthy(*a[2])));
    values.push_back(std::move(value));
    keys.push_back(std::move(key));
  }
  EW_ASSIGN(const std::vector<size_t> order, SortedOrder(rt, keys, false));
  std::vector<Value> out;
  for (size_t i = 0; i < order.size();) {
    std::vector<Value> group;
    const size_t first = order[i];
    while (i < order.size()) {
      EW_ASSIGN(const bool same, rt.AreEqual(keys[order[i]], keys[first]));
      if (!same) break;
      group.push_back(items[order[i++]]);
    }
    EW_ASSIGN(Value list, rt.NewList(std::move(group)));
    EW_ASSIGN(Value pair, rt.NewTuple({values[first], std::move(list)}));
    out.push_back(std::move(pair));
  }
  return rt.NewList(std::move(out));
}

Result<Value> Map(Runtime& rt, const Value& in, CallArgs& args) {
  if (!Truthy(in)) return rt.NewList({});  // none counts as an empty sequence here
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  std::vector<Value> out;
  if (args.positional.empty()) {
    EW_ASSIGN(BoundArgs a, rt.Bind("map", args, {"attribute", "default"}));
    if (!a[0]) return rt.ValueError("map needs a filter or an attribute");
    EW_ASSIGN(const Value path, rt.ToText(*a[0]));
    for (const Value& item : items) {
      EW_RETURN_IF_ERROR(rt.Step());
      EW_ASSIGN(Value value, rt.GetPath(item, path.str(), a[1]));
      out.push_back(std::move(value));
    }
    return rt.NewList(std::move(out));
  }
  EW_ASSIGN(const Value name, rt.TextArg(args.positional[0], "the filter's name"));
  for (const Value& item : items) {
    CallArgs rest;
    rest.positional.assign(args.positional.begin() + 1, args.positional.end());
    rest.named = args.named;
    EW_ASSIGN(Value value, rt.ApplyFilter(name.str(), item, rest));
    out.push_back(std::move(value));
  }
  return rt.NewList(std::move(out));
}

// select, reject (a test on the item) and selectattr, rejectattr (on an attribute of it).
template <bool kKeep, bool kAttribute>
Result<Value> Select(Runtime& rt, const Value& in, CallArgs& args) {
  if (!Truthy(in)) return rt.NewList({});
  EW_ASSIGN(const std::vector<Value> items, rt.Iterate(in));
  size_t used = 0;
  Value path;
  if (kAttribute) {
    if (args.positional.empty()) return rt.ValueError("the attribute's name is missing");
    EW_ASSIGN(path, rt.ToText(args.positional[used++]));
  }
  Value test;
  if (used < args.positional.size()) {
    EW_ASSIGN(test, rt.TextArg(args.positional[used++], "the test's name"));
  }
  std::vector<Value> out;
  for (const Value& item : items) {
    EW_RETURN_IF_ERROR(rt.Step());
    Value value = item;
    if (kAttribute) {
      EW_ASSIGN(value, rt.GetPath(item, path.str(), std::nullopt));
    }
    bool holds = Truthy(value);
    if (test.is_string()) {
      CallArgs rest;
      rest.positional.assign(args.positional.begin() + static_cast<std::ptrdiff_t>(used),
                             args.positional.end());
      rest.named = args.named;
      EW_ASSIGN(holds, rt.ApplyTest(test.str(), value, rest));
    }
    if (holds == kKeep) out.push_back(item);
  }
  return rt.NewList(std::move(out));
}

struct Entry {
  std::string_view name;
  FilterFunction filter;
};
constexpr Entry kFilters[] = {
    {"list", ToList},
    {"first", First},
    {"last", Last},
    {"items", Items},
    {"sort", Sort},
    {"dictsort", DictSort},
    {"min", Extreme<false>},
    {"max", Extreme<true>},
    {"unique", Unique},
    {"reverse", Reverse},
    {"sum", Sum},
    {"batch", Batch},
    {"slice", SliceInto},
    {"groupby", GroupBy},
    {"map", Map},
    {"select", Select<true, false>},
    {"reject", Select<false, false>},
    {"selectattr", Select<true, true>},
    {"rejectattr", Select<false, true>},
};

}  // namespace

FilterFunction FindSequenceFilter(std::string_view name) {
  for (const Entry& entry : kFilters) {
    if (entry.name == name) return entry.filter;
  }
  return nullptr;
}

}  // namespace edgewise::text::jinja
