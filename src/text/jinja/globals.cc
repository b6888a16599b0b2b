// The functions that every template can call.
#include <fmt/format.h>

#include <ctime>

#include "text/jinja/runtime.h"

namespace edgewise::text::jinja {

namespace {

Result<Value> RaiseException(Runtime& rt, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("raise_exception", args, {"message"}));
  if (!a[0]) return rt.ValueError("raise_exception() needs a message");
  EW_ASSIGN(const Value text, rt.ToText(*a[0]));
  return rt.Error(ErrorKind::kRaised, text.str());
}

Result<Value> Range(Runtime& rt, CallArgs& args) {
  if (args.positional.empty() || args.positional.size() > 3 || !args.named.empty()) {
    return rt.ValueError("range() takes 1 to 3 arguments");
  }
  int64_t v[3] = {0, 0, 1};
  for (size_t i = 0; i < args.positional.size(); ++i) {
    if (!args.positional[i].is_integral()) {
      return rt.ValueError(fmt::format("'{}' object cannot be interpreted as an integer",
                                       TypeName(args.positional[i])));
    }
    v[args.positional.size() == 1 ? 1 : i] = args.positional[i].integer();
  }
  const auto [start, stop, step] = v;
  if (step == 0) return rt.ValueError("range() arg 3 must not be zero");
  const bool any = step > 0 ? start < stop : start > stop;
  uint64_t count = 0;
  if (any) {
    const uint64_t span = step > 0 ? static_cast<uint64_t>(stop) - static_cast<uint64_t>(start)
                                   : static_cast<uint64_t>(start) - static_cast<uint64_t>(stop);
    const uint64_t stride =
        step > 0 ? static_cast<uint64_t>(step) : 0 - static_cast<uint64_t>(step);
    count = (span - 1) / stride + 1;
  }
  if (count > static_cast<uint64_t>(rt.limits().range_items)) {
    return rt.Error(ErrorKind::kLimit,
                    fmt::format("range of more than {} items", rt.limits().range_items));
  }
  std::vector<Value> items;
  items.reserve(count);
  int64_t at = start;
  for (uint64_t i = 0; i < count; ++i) {
    items.push_back(Value::Int(at));
    if (i + 1 < count) at += step;
  }
  return rt.NewList(std::move(items));
}

// The entries that dict(...) and namespace(...) get: a mapping or pairs, then keywords.
Result<std::vector<std::pair<Value, Value>>> CollectEntries(Runtime& rt, CallArgs& args) {
  std::vector<std::pair<Value, Value>> entries;
  if (args.positional.size() > 1) return rt.ValueError("expected at most 1 positional argument");
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is_dict()) {
      entries = source.dict().entries();
    } else {
      EW_ASSIGN(const std::vector<Value> pairs, rt.Iterate(source));
      for (const Value& pair : pairs) {
        EW_ASSIGN(std::vector<Value> both, rt.Iterate(pair));
        if (both.size() != 2) return rt.ValueError("expected pairs of key and value");
        entries.emplace_back(both[0], both[1]);
      }
    }
  }
  for (const auto& [name, value] : args.named) {
    EW_ASSIGN(Value key, rt.NewString(name));
    entries.emplace_back(std::move(key), value);
  }
  return entries;
}

Result<Value> MakeDict(Runtime& rt, CallArgs& args) {
  EW_ASSIGN(auto entries, CollectEntries(rt, args));
  return rt.NewDict(std::move(entries));
}

Result<Value> MakeNamespace(Runtime& rt, CallArgs& args) {
  EW_ASSIGN(const auto entries, CollectEntries(rt, args));
  EW_ASSIGN(const std::shared_ptr<Namespace> ns, rt.NewNamespace());
  for (const auto& [key, value] : entries) {
    if (!key.is_string()) return rt.ValueError("names in a namespace must be strings");
    EW_RETURN_IF_ERROR(rt.Step());
    if (ns->attributes.size() >= 1000) {
      return rt.Error(ErrorKind::kLimit, "a namespace of more than 1000 names");
    }
    ns->Set(key.str(), value);
  }
  return Value::Of(ns);
}

// The conversions of Python's strftime that are safe and portable; others stay as written.
Result<Value> StrftimeNow(Runtime& rt, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("strftime_now", args, {"format"}));
  EW_ASSIGN(const Value format, rt.TextArg(a[0], "the format of strftime_now()"));
  const std::tm now = *rt.now();
  static constexpr std::string_view kAllowed = "aAbBcdDeFgGhHIjmMnpPrRStTuUVwWxXyYzZ";
  const std::string_view f = format.str();
  if (f.size() > 4096) return rt.Error(ErrorKind::kLimit, "date format too long");
  std::string out;
  for (size_t i = 0; i < f.size(); ++i) {
    if (f[i] != '%' || i + 1 >= f.size()) {
      out += f[i];
      continue;
    }
    const bool bare = f[i + 1] == '-' && i + 2 < f.size();  // %-d: without a leading zero
    const char c = f[i + (bare ? 2 : 1)];
    if (c == '%' && !bare) {
      out += '%';
      ++i;
      continue;
    }
    if (kAllowed.find(c) == std::string_view::npos) {
      out += f[i];
      continue;
    }
    const char spec[] = {'%', c, '\0'};
    char buffer[128];
    std::string piece(buffer, std::strftime(buffer, sizeof buffer, spec, &now));
    if (bare) {
      const size_t digit = piece.find_first_not_of('0');
      piece = digit == std::string::npos ? "0" : piece.substr(digit);
    }
    out += piece;
    i += bare ? 2 : 1;
  }
  return rt.NewString(std::move(out));
}

class Cycler : public Object {
 public:
  explicit Cycler(Value items) : items_(std::move(items)) {}
  std::string_view type_name() const override { return "Cycler"; }
  Result<Value> Attribute(Runtime& rt, std::string_view name) override {
    if (name == "current") return items_.items()[*at_];
    if (name == "next") {
      return rt.NewFunction("next", [items = items_, at = at_](Runtime&, CallArgs&) {
        const Value now = items.items()[*at];
        *at = (*at + 1) % items.items().size();
        return Result<Value>(now);
      });
    }
    if (name == "reset") {
      return rt.NewFunction("reset", [at = at_](Runtime&, CallArgs&) {
        *at = 0;
        return Result<Value>(Value::None());
      });
    }
    return Value();
  }

 private:
  Value items_;
  std::shared_ptr<size_t> at_ = std::make_shared<size_t>(0);
};

Result<Value> MakeCycler(Runtime& rt, CallArgs& args) {
  if (args.positional.empty()) return rt.ValueError("at least one item has to be provided");
  EW_ASSIGN(Value items, rt.NewTuple(std::move(args.positional)));
  return Value::Of(std::make_shared<Cycler>(std::move(items)));
}

Result<Value> MakeJoiner(Runtime& rt, CallArgs& args) {
  EW_ASSIGN(BoundArgs a, rt.Bind("joiner", args, {"sep"}));
  EW_ASSIGN(Value separator, rt.NewString(", "));
  if (a[0]) separator = *a[0];
  return rt.NewFunction(
      "joiner",
      [separator, used = std::make_shared<bool>(false)](Runtime& r, CallArgs&) -> Result<Value> {
        if (std::exchange(*used, true)) return separator;
        return r.NewString("");
      });
}

}  // namespace

const std::vector<std::pair<std::string_view, Builtin::Function>>& GlobalFunctions() {
  static const auto* const functions =
      new std::vector<std::pair<std::string_view, Builtin::Function>>{
          {"raise_exception", RaiseException},
          {"range", Range},
          {"dict", MakeDict},
          {"namespace", MakeNamespace},
          {"strftime_now", StrftimeNow},
          {"cycler", MakeCycler},
          {"joiner", MakeJoiner},
      };
  return *functions;
}

}  // namespace edgewise::text::jinja
