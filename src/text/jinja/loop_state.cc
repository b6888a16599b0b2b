#include "text/jinja/loop_state.h"

namespace edgewise::text::jinja {

Result<Value> LoopState::Attribute(Runtime& rt, std::string_view name) {
  const auto i = static_cast<int64_t>(index_);
  const auto n = static_cast<int64_t>(items().size());
  if (name == "index") return Value::Int(i + 1);
  if (name == "index0") return Value::Int(i);
  if (name == "revindex") return Value::Int(n - i);
  if (name == "revindex0") return Value::Int(n - i - 1);
  if (name == "first") return Value::Bool(i == 0);
  if (name == "last") return Value::Bool(i == n - 1);
  if (name == "length") return Value::Int(n);
  if (name == "depth") return Value::Int(1);
  if (name == "depth0") return Value::Int(0);
  // Behind the ends there is an undefined value of its own reason.
  if (name == "previtem") return i > 0 ? items()[index_ - 1] : Value();
  if (name == "nextitem") return i + 1 < n ? items()[index_ + 1] : Value();
  if (name == "cycle") {
    return rt.NewFunction("cycle", [i](Runtime& r, CallArgs& args) -> Result<Value> {
      if (args.positional.empty()) return r.ValueError("no items for cycling given");
      return args.positional[static_cast<size_t>(i) % args.positional.size()];
    });
  }
  if (name == "changed") {
    // The last arguments live in a namespace: they could hold this loop itself.
    if (!changed_) {
      EW_ASSIGN(changed_, rt.NewNamespace());
    }
    return rt.NewFunction("changed",
                          [state = changed_](Runtime& r, CallArgs& args) -> Result<Value> {
                            EW_ASSIGN(const Value now, r.NewTuple(args.positional));
                            bool same = false;
                            if (const Value* last = state->Find("last")) {
                              EW_ASSIGN(same, r.AreEqual(*last, now));
                            }
                            state->Set("last", now);
                            return Value::Bool(!same);
                          });
  }
  return Value();
}

}  // namespace edgewise::text::jinja
