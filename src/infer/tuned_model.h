// A base with what was tuned of it, as the one model that it is.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "formats/hf_dir.h"
#include "infer/logit_error.h"
#include "model/exit_set.h"
#include "model/lora.h"
#include "model/model.h"

namespace edgewise::infer {

class TunedModel {
 public:
  // `tuned`: a PEFT adapter, a run with exits (`exit`: which one, from 0; -1: the deepest), or ""
  // for the base as it is. Errors: files that are missing, damaged or of another model; no such
  // exit.
  static Result<std::unique_ptr<TunedModel>> Open(const formats::ModelLocation& base,
                                                  const std::string& tuned, int exit = -1);

  // Of the model that results: of an exit the layers below it, with a head of its own where that
  // was tuned.
  const model::ModelConfig& config() const { return config_; }
  const model::Model& base() const { return *base_; }
  // Rows first .. first + n - 1 of a matrix, or a vector as a whole (0, 1), with what was tuned
  // added -> out, fp32. Pages of mapped weights are given back.
  void Rows(const model::WeightId& id, int64_t first, int64_t n, float* out) const;
  // For LogitError. Valid as long as this.
  ProbedModel probed() const;

 private:
  TunedModel() = default;
  const model::LoraSlot* SlotOf(const model::WeightId& id) const;

  std::string path_;
  std::unique_ptr<model::Model> base_;
  model::ModelConfig config_;
  std::optional<model::LoraAdapter> adapter_;
  std::optional<model::ExitSet> exits_;
  const model::TunedExit* exit_ = nullptr;  // of exits_
  model::LoraSlot head_slot_;
};

}  // namespace edgewise::infer
