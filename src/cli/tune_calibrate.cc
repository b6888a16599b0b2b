// The first micro-batches of a run, which say how fast the machine is today.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "cli/tune_fit.h"
#include "model/weight_stream.h"
#include "tune/cut_batch.h"

namespace edgewise::cli {
namespace {

// Of micro-batches that are run to see how long they take.
constexpr int64_t kMostProbes = 64;
constexpr double kProbeShare = 0.03;  // of the run, between these
constexpr double kLeastProbeSeconds = 1.5, kMostProbeSeconds = 6;
// The first one reads all weights and touches memory for the first time: a second one is worth this
// share of the run.
constexpr double kSecondProbeShare = 0.3;
constexpr double kMostOff = 4;  // what is further off is not the operations' time

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Status TuneFit::Calibrate(tune::Method& method, const tune::EdgeMethod* edge) {
  // One kind of step, which a micro-batch stands for.
  if (kinds_ != 1 || windows_ != 1) return Status::Ok();
  // A teacher's part has been measured (Probe) and is not in the plan.
  if (edge != nullptr && edge->options().teacher != nullptr) return Status::Ok();
  const plan::Plan& p = prediction_.plan;
  // Seconds so far, without those spent waiting for weights. States at a window's start that are
  // read, or made once, are not in the plan.
  const auto computed = [&] {
    if (edge != nullptr && cached_) {
      const model::PassPhases& pass = edge->times().pass;
      return pass.forward + pass.head + pass.backward - pass.waited;
    }
    return Now() - (model_.stream() != nullptr ? model_.stream()->stats().wait_seconds : 0);
  };
  const double optimizer =
      p.workload.optimizer_gbytes / std::max(prediction_.device.memory().read_gbps, 1e-9);
  const double per_token = (p.streams.compute - optimizer) /
                           static_cast<double>(p.choice.micro_batches * p.workload.tokens);
  const double allowed =
      std::clamp(kProbeShare * prediction_.seconds, kLeastProbeSeconds, kMostProbeSeconds);
  if (per_token <= 0) return Status::Ok();
  const int64_t group = std::max<int64_t>(method.group(), 1);
  double took = 0, expected = 0;
  int64_t probes = 0;
  const double second = kSecondProbeShare * prediction_.seconds;
  const auto more = [&](double spent) {
    return probes < kMostProbes && (spent < allowed || (probes == 1 && expected <= second));
  };
  int64_t next = 0;  // of the data's micro-batches
  for (double spent = 0; more(spent); ++probes) {
    std::vector<TokenBatch> batches;
    std::vector<const TokenBatch*> pointers;
    std::vector<int64_t> micros;
    double tokens = 0;
    for (; std::ssize(batches) < group; ++next) {
      EW_ASSIGN(TokenBatch whole, data_.train->Get(0, next % data_.train->batches_per_epoch()));
      for (TokenBatch& part : tune::CutBatch(std::move(whole), plan_.split_tokens)) {
        if (std::ssize(batches) == group) break;
        tokens += static_cast<double>(part.size());
        micros.push_back(std::ssize(batches));
        batches.push_back(std::move(part));
      }
    }
    for (const TokenBatch& batch : batches) pointers.push_back(&batch);
    tune::MicroContext context;
    context.grad_scale = 1.0 / tokens;
    const double before = computed(), start = Now();
    std::vector<tune::LossSum> losses;
    EW_RETURN_IF_ERROR(method.Micros(pointers, micros, context, &losses));
    const double seconds = computed() - before;
    spent += Now() - start;
    // (Which counts little where there is no other.)
    if (probes == 1) took = expected = 0;
    took += seconds;
    expected += per_token * tokens;
  }
  if (took <= 0 || expected <= 0) return Status::Ok();
  const double factor = std::clamp(took / expected, 1 / kMostOff, kMostOff);
  EW_RETURN_IF_ERROR(Rescale(factor, &prediction_));
  SetPrediction();
  return Status::Ok();
}

}  // namespace edgewise::cli
