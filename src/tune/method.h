// What is trained in a step, and how: the part of tuning in which methods differ. The trainer owns
// everything else (accumulation, optimiser, schedule, checkpoints, validation).
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "formats/tensor_source.h"
#include "io/env.h"
#include "model/parameters.h"
#include "report/metrics.h"
#include "tensor/token_batch.h"

namespace edgewise::tune {

struct MicroContext {
  int64_t step = 0;   // from 0
  int64_t micro = 0;  // within the step, from 0
  uint64_t seed = 0;
  double grad_scale = 0;  // 1 / (supervised tokens of the whole step)
};

struct LossSum {
  double loss_sum = 0;  // over the supervised tokens
  int64_t tokens = 0;   // supervised
  int64_t correct = 0;  // whose most likely token is the target
  double mean() const { return tokens > 0 ? loss_sum / static_cast<double>(tokens) : 0; }
};

// A file of the trained result, as users and other programs read it. `write` is valid until the
// method changes again.
struct ResultFile {
  std::string name;   // plain file name
  int64_t bytes = 0;  // about
  std::function<Status(WritableFile&)> write;
};

class Method {
 public:
  virtual ~Method() = default;

  // Every trainable array with its gradient, unique names; the same over the method's life.
  virtual const std::vector<model::Parameter>& params() const = 0;

  // Chooses what step `step` trains (indices into params(), ascending) and zeroes the gradients of
  // those. Depends on nothing but `step` and the saved state.
  virtual Status BeginStep(int64_t step, std::vector<int32_t>* active) = 0;

  // The steps [first, second) over which the learning rate runs through its schedule once, `step`
  // among them.
  virtual std::pair<int64_t, int64_t> RatePhase(int64_t step, int64_t total_steps) {
    (void)step;
    return {0, total_steps};
  }

  // Forward and backward of one micro-batch: adds the gradient of grad_scale * (sum of losses).
  // A loss that is not finite is returned as it is. Must not depend on anything but its arguments,
  // the step begun and the parameters: a step is repeated from its beginning after an interruption.
  virtual Result<LossSum> Micro(const TokenBatch& batch, const MicroContext& context) = 0;

  // The same of several micro-batches of the step, numbered by `micros` -> *losses, in this order.
  // As one after the other, to the bit: a method may only save reading weights by it. Losses that
  // are not finite do not stop the others.
  virtual Status Micros(std::span<const TokenBatch* const> batches, std::span<const int64_t> micros,
                        MicroContext context, std::vector<LossSum>* losses) {
    losses->clear();
    for (size_t i = 0; i < batches.size(); ++i) {
      context.micro = micros[i];
      EW_ASSIGN(losses->emplace_back(), Micro(*batches[i], context));
    }
    return Status::Ok();
  }
  // How many micro-batches are given to Micros at a time.
  virtual int64_t group() const { return 1; }

  // After the optimiser's update, or in its place when the step was skipped.
  virtual Status EndStep(int64_t step, const LossSum& loss, bool applied) {
    (void)step, (void)loss, (void)applied;
    return Status::Ok();
  }

  // Loss without gradients.
  virtual Result<LossSum> Evaluate(const TokenBatch& batch) = 0;
  // The same of every exit alone, lowest first; empty: there are no others than the model's own
  // output.
  virtual Result<std::vector<LossSum>> EvaluateExits(const TokenBatch& batch) {
    (void)batch;
    return std::vector<LossSum>();
  }
  // The exit that the step begun tunes, where there are several; else -1.
  virtual int CurrentExit() const { return -1; }

  // What the method holds now, the optimiser's state not counted.
  virtual report::HeldMemory Held() const { return {}; }

  // The result as it stands, for a checkpoint or the run's directory. Reading these back must give
  // the parameters exactly.
  virtual Result<std::vector<ResultFile>> Files() = 0;
  // Files that only the finished result needs beside those (configuration, tokenizer).
  virtual Result<std::vector<ResultFile>> ExportFiles() { return std::vector<ResultFile>(); }
  // Sets the parameters from a directory that holds these files.
  virtual Status Restore(const std::string& directory) = 0;

  // State beyond the parameters, as text ("" when there is none).
  virtual std::string SaveState() const { return ""; }
  virtual Status LoadState(const std::string& state) {
    return state.empty() ? Status::Ok() : BadInput("unexpected state of the method");
  }

  // Name ("lora", ...) and the options that decide the arithmetic, as JSON text: compared when a
  // run is resumed and kept in edgewise.json.
  virtual std::string name() const = 0;
  virtual std::string OptionsJson() const = 0;
};

}  // namespace edgewise::tune
