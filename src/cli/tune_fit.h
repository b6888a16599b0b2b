// How a run of tune is made to fit its limit, and what it is predicted to take.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/tune_data.h"
#include "cli/tune_options.h"
#include "cli/tune_output.h"
#include "cli/tune_predict.h"
#include "exec/context.h"
#include "model/activation_spill.h"
#include "model/model.h"
#include "tune/edge_method.h"
#include "tune/memory_estimate.h"

namespace edgewise::cli {

class TuneFit {
 public:
  // Everything passed must outlive this. The plan receives what is decided.
  TuneFit(ExecContext& ctx, const model::Model& model, const TuneFlags& flags, const TuneData& data,
          TunePlan* plan)
      : ctx_(ctx), model_(model), flags_(flags), data_(data), plan_(*plan) {}

  // The run's size and limit (`asked` bytes; 0: what the system allows). Methods other than edge
  // are checked at once. `recorded`: how the run that goes on cuts its micro-batches
  // (tune::RecordedSplit), which has to stay. Errors: kOutOfMemory, with the smallest limit that
  // works; kInvalidArgument: another --split than recorded.
  Status Begin(const tune::ModelMethodOptions& method, int64_t asked, int64_t recorded);
  // Whether they may yet come to be cut otherwise than the data gives them.
  bool MayCut() const {
    return plan_.split_tokens > 0 || (may_cut_ && request_.max_tokens > longest_);
  }
  // Of a micro-batch as it will be.
  int64_t max_tokens() const { return request_.max_tokens; }
  // Whether method edge may yet come to have more and smaller windows than were asked for.
  bool MayShrinkWindows() const { return may_shrink_; }
  // After `refusal` by AddWindows or Predict: the least number of windows above `tried` that fits,
  // as far as can be told before they are made. `edge` has one window, of all layers that are
  // tuned. Error: `refusal` where nothing can be done, or, of all numbers of windows, the one with
  // the smallest limit that works.
  Result<int64_t> SmallerWindows(tune::EdgeMethod* edge, int64_t tried, Status refusal);
  // Method edge, whose largest window decides; `cached`: states below windows are kept;
  // `beside`: bytes that the run takes and the model does not know of. Again for other windows.
  Status AddWindows(tune::EdgeMethod* edge, bool cached, int64_t beside);
  // The step's time and peak: operations are measured, the plan is searched and checked, and what
  // the process has grown by until then is taken off what the weights may take. A streamed model's
  // budget and the method's recomputation are set. `edge`: null for other methods.
  Status Predict(tune::EdgeMethod* edge);
  // A few micro-batches of the run itself, as planned: the machine in the state in which the steps
  // will find it says more than operations one by one. Changes nothing that lasts, and no bit of
  // the run. `method`: of the plan; `edge`: the same, or null.
  Status Calibrate(tune::Method& method, const tune::EdgeMethod* edge);
  // Through which the plan sends activations; null: it keeps all. Goes with this.
  model::ActivationSpill* spill() const { return spill_.get(); }

 private:
  void SetPrediction();
  Status Fit();
  // With micro-batches as large as can be, where they may be cut.
  Status FitCut();
  Status BeginSplit(int64_t recorded);
  // The largest micro-batch, cut so.
  int64_t TokensOf(int64_t split_tokens) const;
  // Smaller sizes to cut to than the present one, down to the longest document.
  std::vector<int64_t> SmallerCuts() const;
  void SetSplit(int64_t tokens);
  bool WindowsAreFree() const;
  // What a refusal says of micro-batches.
  Status Explain(Status refusal) const;
  Status PredictOnce(tune::EdgeMethod* edge);
  // As cut as the plan says; its cache of states is as that needs it.
  Status ObeySplit(tune::EdgeMethod* edge, bool settled);
  // Makes the spill that plan_ wants, with room on the disk, and tells the method.
  Status ObeySpill(tune::EdgeMethod* edge);
  // Where activations would go; of a run that is only looked at, the nearest directory that exists.
  std::string SpillDirectory() const;
  int64_t Held() const;
  Status Probe(tune::EdgeMethod& edge, PredictRequest* request);
  // Counts what the process holds more than when this was last read (freed memory given back).
  void Grow();
  // Reads again what the process and its kernels take beside what is counted elsewhere.
  void Settle(int64_t mean_tokens);

  ExecContext& ctx_;
  const model::Model& model_;
  const TuneFlags& flags_;
  const TuneData& data_;
  TunePlan& plan_;
  tune::MemoryRequest request_;
  plan::Recompute asked_recompute_ = plan::Recompute::kNone;
  bool data_limit_ = false;  // smaller than what was asked for
  bool may_cut_ = false, cut_to_save_ = false, recorded_ = false;
  int64_t longest_ = 1;  // document
  bool cached_ = false, complete_ = false;
  bool may_shrink_ = false;
  int64_t beside_ = 0;                // of AddWindows
  tune::EdgeMethod* edge_ = nullptr;  // whose memory is planned
  std::vector<tune::Exit> instead_;   // of its own windows the method's memory is that of these
  int64_t smallest_ = 0;              // limit that would have fitted, as of the last refusal
  RunPrediction prediction_;
  size_t kinds_ = 0;     // of steps
  int64_t windows_ = 1;  // of a step
  std::unique_ptr<model::ActivationSpill> spill_;
  int64_t before_ = 0;  // resident when measuring began, scratch of the kernels left out
};

}  // namespace edgewise::cli
