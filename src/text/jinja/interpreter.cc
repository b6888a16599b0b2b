#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/loop_state.h"

namespace edgewise::text::jinja {

namespace {

// Statements and expressions open at one moment. With the frames of this program it keeps the
// stack below a few MiB.
constexpr int kMaxDepth = 800;
constexpr size_t kMaxCapturedScopes = 10'000;

}  // namespace

Value* Scope::Find(std::string_view name) {
  for (auto& [key, value] : variables) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Scope::Set(std::string_view name, Value value) {
  if (Value* old = Find(name)) {
    *old = std::move(value);
  } else {
    variables.emplace_back(std::string(name), std::move(value));
  }
}

Interpreter::ScopeGuard::ScopeGuard(Interpreter* in, Scope* parent)
    : in_(in), before_(in->scope_), scope_(std::make_unique<Scope>(parent)) {
  in_->scope_ = scope_.get();
}

Interpreter::ScopeGuard::~ScopeGuard() {
  in_->scope_ = before_;
  if (scope_->captured) in_->captured_.push_back(std::move(scope_));
}

Interpreter::Interpreter(const JinjaLimits& limits, std::optional<std::tm> now,
                         const std::vector<std::pair<std::string, Value>>& globals)
    : Runtime(limits, now) {
  for (const auto& [name, function] : GlobalFunctions()) {
    root_.Set(name, NewFunction(std::string(name), function));
  }
  for (const auto& [name, value] : globals) root_.Set(name, value);
}

Interpreter::~Interpreter() {
  // Namespaces, scopes and macros may refer to each other; emptying them one by one breaks every
  // cycle and never recurses.
  block_input_ = Value();
  for (const auto& ns : namespaces_) ns->attributes.clear();
  for (const auto& scope : captured_) scope->variables.clear();
  root_.variables.clear();
}

Result<MarkedText> Interpreter::Render(const Body& body) {
  MarkedTextBuilder builder = Builder();
  out_ = &builder;
  const Status status = ExecBody(body);
  out_ = nullptr;
  EW_RETURN_IF_ERROR(status);
  return builder.Take();
}

Status Interpreter::ExecBody(const Body& body) {
  for (const StmtPtr& stmt : body) {
    EW_RETURN_IF_ERROR(Exec(*stmt));
    if (flow_ != Flow::kNext) break;
  }
  return Status::Ok();
}

Status Interpreter::Exec(const Stmt& stmt) {
  const DepthGuard guard(this);
  line_ = stmt.line;
  EW_RETURN_IF_ERROR(Step());
  if (depth_ > kMaxDepth) return Error(ErrorKind::kLimit, "blocks and calls nested too deep");
  switch (stmt.kind) {
    case StmtKind::kData:
      return EmitData(static_cast<const DataStmt&>(stmt).text);
    case StmtKind::kOutput: {
      EW_ASSIGN(const Value value, Eval(*static_cast<const OutputStmt&>(stmt).value));
      return Emit(value);
    }
    case StmtKind::kIf:
      return ExecIf(static_cast<const IfStmt&>(stmt));
    case StmtKind::kFor:
      return ExecFor(static_cast<const ForStmt&>(stmt));
    case StmtKind::kSet: {
      const auto& set = static_cast<const SetStmt&>(stmt);
      EW_ASSIGN(const Value value, Eval(*set.value));
      return Assign(set.target, value);
    }
    case StmtKind::kSetBlock:
      return ExecSetBlock(static_cast<const SetBlockStmt&>(stmt));
    case StmtKind::kMacro: {
      const auto& macro = static_cast<const MacroStmt&>(stmt);
      if (captured_.size() > kMaxCapturedScopes) {
        return Error(ErrorKind::kLimit, "too many scopes with macros");
      }
      scope_->Set(macro.name, DefineMacro(macro));
      return Status::Ok();
    }
    case StmtKind::kCallBlock:
      return ExecCallBlock(static_cast<const CallBlockStmt&>(stmt));
    case StmtKind::kFilterBlock: {
      const auto& block = static_cast<const FilterBlockStmt&>(stmt);
      EW_ASSIGN(Value text, Capture(block.body, scope_));
      const Value before = std::exchange(block_input_, std::move(text));
      Result<Value> filtered = Eval(*block.filter);
      block_input_ = before;
      EW_RETURN_IF_ERROR(filtered.status());
      return Emit(*filtered);
    }
    case StmtKind::kWith:
      return ExecWith(static_cast<const WithStmt&>(stmt));
    case StmtKind::kBreak:
      flow_ = Flow::kBreak;
      return Status::Ok();
    case StmtKind::kContinue:
      flow_ = Flow::kContinue;
      return Status::Ok();
    case StmtKind::kGeneration: {
      const uint8_t before = out_->extra_marks();
      out_->set_extra_marks(before | kMarkGenerated);
      const ScopeGuard scope(this, scope_);
      const Status status = ExecBody(static_cast<const GenerationStmt&>(stmt).body);
      out_->set_extra_marks(before);
      return status;
    }
  }
  return Internal("a statement of unknown kind");
}

Status Interpreter::ExecIf(const IfStmt& stmt) {
  for (const auto& [test, body] : stmt.branches) {
    EW_ASSIGN(const Value value, Eval(*test));
    if (Truthy(value)) return ExecBody(body);
  }
  return ExecBody(stmt.otherwise);
}

Status Interpreter::ExecFor(const ForStmt& stmt) {
  EW_ASSIGN(const Value iterable, Eval(*stmt.iterable));
  Value list = iterable;
  if (!iterable.is_sequence()) {
    EW_ASSIGN(std::vector<Value> items, Iterate(iterable));
    EW_ASSIGN(list, NewList(std::move(items)));
  }
  if (stmt.filter) {
    std::vector<Value> kept;
    for (const Value& item : list.items()) {
      EW_RETURN_IF_ERROR(Step());
      const ScopeGuard scope(this, scope_);
      EW_RETURN_IF_ERROR(Assign(stmt.target, item));
      EW_ASSIGN(const Value keep, Eval(*stmt.filter));
      if (Truthy(keep)) kept.push_back(item);
    }
    EW_ASSIGN(list, NewList(std::move(kept)));
  }
  if (list.items().empty()) {
    const ScopeGuard scope(this, scope_);
    return ExecBody(stmt.otherwise);
  }
  const auto loop = std::make_shared<LoopState>(std::move(list));
  for (size_t i = 0; i < loop->items().size(); ++i) {
    line_ = stmt.line;
    EW_RETURN_IF_ERROR(Step());
    loop->set_index(i);
    const ScopeGuard scope(this, scope_);
    scope_->Set("loop", Value::Of(loop));
    EW_RETURN_IF_ERROR(Assign(stmt.target, loop->items()[i]));
    EW_RETURN_IF_ERROR(ExecBody(stmt.body));
    const Flow flow = std::exchange(flow_, Flow::kNext);
    if (flow == Flow::kBreak) break;
  }
  return Status::Ok();
}

Status Interpreter::ExecSetBlock(const SetBlockStmt& stmt) {
  EW_ASSIGN(Value text, Capture(stmt.body, scope_));
  if (stmt.filter) {
    const Value before = std::exchange(block_input_, std::move(text));
    Result<Value> filtered = Eval(*stmt.filter);
    block_input_ = before;
    EW_RETURN_IF_ERROR(filtered.status());
    text = std::move(filtered).value();
  }
  return Assign(stmt.target, text);
}

Status Interpreter::ExecCallBlock(const CallBlockStmt& stmt) {
  const auto& call = static_cast<const CallExpr&>(*stmt.call);
  EW_ASSIGN(const Value callee, Eval(*call.callee));
  EW_ASSIGN(CallArgs args, EvalArgs(call.args));
  if (captured_.size() > kMaxCapturedScopes) {
    return Error(ErrorKind::kLimit, "too many scopes with macros");
  }
  args.named.emplace_back("caller", DefineMacro(*stmt.caller));
  EW_ASSIGN(const Value text, Call(callee, args));
  return Emit(text);
}

Status Interpreter::ExecWith(const WithStmt& stmt) {
  std::vector<Value> values;
  for (const auto& assignment : stmt.assignments) {
    EW_ASSIGN(Value value, Eval(*assignment.second));
    values.push_back(std::move(value));
  }
  const ScopeGuard scope(this, scope_);
  for (size_t i = 0; i < values.size(); ++i) {
    EW_RETURN_IF_ERROR(Assign(stmt.assignments[i].first, values[i]));
  }
  return ExecBody(stmt.body);
}

Status Interpreter::Assign(const Target& target, const Value& value) {
  if (!target.items.empty()) {
    EW_ASSIGN(const std::vector<Value> items, Iterate(value));
    if (items.size() != target.items.size()) {
      return ValueError(
          fmt::format("cannot unpack {} values into {} names", items.size(), target.items.size()));
    }
    for (size_t i = 0; i < items.size(); ++i) {
      EW_RETURN_IF_ERROR(Assign(target.items[i], items[i]));
    }
    return Status::Ok();
  }
  if (target.attribute.empty()) {
    scope_->Set(target.name, value);
    return Status::Ok();
  }
  EW_ASSIGN(const Value object, EvalName(NameExpr(line_, target.name)));
  auto* ns = object.kind() == Kind::kObject ? dynamic_cast<Namespace*>(object.object()) : nullptr;
  if (ns == nullptr) return ValueError("cannot assign attribute on non-namespace object");
  ns->Set(target.attribute, value);
  return Status::Ok();
}

Status Interpreter::EmitData(std::string_view text) {
  out_->Append(text);
  if (out_->overflow()) {
    return Error(ErrorKind::kLimit,
                 fmt::format("text of more than {} bytes", limits().output_bytes));
  }
  return Work(static_cast<int64_t>(text.size()));
}

Status Interpreter::Emit(const Value& value) {
  const size_t before = out_->size();
  EW_RETURN_IF_ERROR(AppendText(value, out_));
  return Work(static_cast<int64_t>(out_->size() - before));
}

Result<Value> Interpreter::Capture(const Body& body, Scope* parent) {
  // All open buffers together stay below the limit of one.
  const int64_t outer_before = outer_bytes_;
  outer_bytes_ += static_cast<int64_t>(out_->size());
  MarkedTextBuilder builder(std::max<int64_t>(0, limits().output_bytes - outer_bytes_));
  builder.set_extra_marks(0);
  MarkedTextBuilder* const before = std::exchange(out_, &builder);
  Status status;
  {
    const ScopeGuard scope(this, parent);
    status = ExecBody(body);
  }
  out_ = before;
  outer_bytes_ = outer_before;
  EW_RETURN_IF_ERROR(status);
  return NewText(std::move(builder));
}

Value Interpreter::DefineMacro(const MacroStmt& stmt) {
  for (Scope* s = scope_; s != nullptr && !s->captured; s = s->parent) s->captured = true;
  return Value::Of(std::make_shared<Macro>(&stmt, scope_));
}

Result<Value> Interpreter::Call(const Value& callee, CallArgs& args) {
  if (callee.is_undefined()) return ValueError(callee.why_undefined());
  if (callee.kind() == Kind::kObject) {
    if (const auto* builtin = dynamic_cast<const Builtin*>(callee.object())) {
      EW_RETURN_IF_ERROR(Step());
      return builtin->Call(*this, args);
    }
    if (const auto* macro = dynamic_cast<const Macro*>(callee.object())) {
      return CallMacro(*macro, args);
    }
  }
  return ValueError(fmt::format("'{}' object is not callable", TypeName(callee)));
}

Result<Value> Interpreter::CallMacro(const Macro& macro, CallArgs& args) {
  if (call_depth_ >= limits().call_depth) {
    return Error(ErrorKind::kLimit,
                 fmt::format("macros call each other more than {} deep", limits().call_depth));
  }
  ++call_depth_;
  const int line = line_;
  const ScopeGuard scope(this, macro.scope);
  const Status bound = BindMacroArgs(*macro.definition, args);
  Result<Value> text = bound.ok() ? Capture(macro.definition->body, scope_) : Result<Value>(bound);
  --call_depth_;
  line_ = line;
  return text;
}

Status Interpreter::BindMacroArgs(const MacroStmt& macro, CallArgs& args) {
  const size_t n = macro.parameters.size();
  std::vector<Value> extra;
  for (size_t i = 0; i < args.positional.size(); ++i) {
    if (i < n) {
      scope_->Set(macro.parameters[i], args.positional[i]);
    } else {
      extra.push_back(args.positional[i]);
    }
  }
  std::vector<std::pair<Value, Value>> named;
  for (const auto& [name, value] : args.named) {
    if (name == "caller") {
      scope_->Set("caller", value);
      continue;
    }
    const bool known =
        std::find(macro.parameters.begin(), macro.parameters.end(), name) != macro.parameters.end();
    if (known && scope_->Find(name) != nullptr) {
      return ValueError(fmt::format("macro '{}' got '{}' twice", macro.name, name));
    }
    if (known) {
      scope_->Set(name, value);
    } else {
      EW_ASSIGN(Value key, NewString(name));
      named.emplace_back(std::move(key), value);
    }
  }
  if (!extra.empty() && !macro.uses_varargs) {
    return ValueError(fmt::format("macro '{}' takes not more than {} argument(s)", macro.name, n));
  }
  if (!named.empty() && !macro.uses_kwargs) {
    return ValueError(
        fmt::format("macro '{}' takes no keyword argument '{}'", macro.name, named[0].first.str()));
  }
  for (size_t i = 0; i < n; ++i) {
    if (scope_->Find(macro.parameters[i]) != nullptr) continue;
    const size_t first_default = n - macro.defaults.size();
    Value value = Value::Undefined(fmt::format("parameter '{}' of macro '{}' was not provided",
                                               macro.parameters[i], macro.name));
    if (i >= first_default) {
      EW_ASSIGN(value, Eval(*macro.defaults[i - first_default]));
    }
    scope_->Set(macro.parameters[i], std::move(value));
  }
  if (macro.uses_varargs) {
    EW_ASSIGN(Value varargs, NewTuple(std::move(extra)));
    scope_->Set("varargs", std::move(varargs));
  }
  if (macro.uses_kwargs) {
    EW_ASSIGN(Value kwargs, NewDict(std::move(named)));
    scope_->Set("kwargs", std::move(kwargs));
  }
  return Status::Ok();
}

}  // namespace edgewise::text::jinja
