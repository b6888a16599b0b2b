// The variable `loop` inside of a for block.
#pragma once

#include "text/jinja/runtime.h"

namespace edgewise::text::jinja {

class LoopState : public Object {
 public:
  // `list`: a list or tuple, what the loop visits.
  explicit LoopState(Value list) : list_(std::move(list)) {}
  std::string_view type_name() const override { return "LoopContext"; }
  Result<Value> Attribute(Runtime& rt, std::string_view name) override;
  const std::vector<Value>& items() const { return list_.items(); }
  void set_index(size_t i) { index_ = i; }

 private:
  Value list_;
  size_t index_ = 0;
  std::shared_ptr<Namespace> changed_;
};

}  // namespace edgewise::text::jinja
