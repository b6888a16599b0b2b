#include "cli/tune_predict.h"

#include <algorithm>
#include <chrono>

#include "model/flops.h"

namespace edgewise::cli {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Run twice: the second time without first touches of memory.
Result<double> SecondsOfFirstBatch(tune::Method& method, const PredictRequest& request,
                                   int64_t* tokens) {
  EW_ASSIGN(const TokenBatch batch, request.data.train->Get(0, 0));
  *tokens = batch.size();
  double seconds = 0;
  for (int run = 0; run < 2; ++run) {
    std::vector<int32_t> active;
    EW_RETURN_IF_ERROR(method.BeginStep(0, &active));
    const double start = Now();
    EW_RETURN_IF_ERROR(
        method.Micro(batch, {.step = 0, .micro = 0, .seed = request.seed, .grad_scale = 1.0})
            .status());
    seconds = Now() - start;
  }
  return seconds;
}

double TokensOf(const DatasetSource* source) {
  double tokens = 0;
  if (source == nullptr) return 0;
  for (const data::Example& e : source->examples()) tokens += static_cast<double>(e.ids.size());
  return tokens;
}

double TrainedTokens(const PredictRequest& r) {
  return TokensOf(r.data.train.get()) / static_cast<double>(r.data.train->batches_per_epoch()) *
         static_cast<double>(r.steps * r.grad_accum);
}

double ValidatedTokens(const PredictRequest& r) {
  return TokensOf(r.data.valid.get()) * static_cast<double>(r.validations);
}

}  // namespace

Result<double> PredictSeconds(tune::Method& method, const PredictRequest& request) {
  int64_t tokens = 0;
  EW_ASSIGN(const double seconds, SecondsOfFirstBatch(method, request, &tokens));
  const double per_token = seconds / static_cast<double>(tokens);
  // Forward alone (validation) is taken as a third of a step.
  return per_token * (TrainedTokens(request) + ValidatedTokens(request) / 3);
}

Result<double> PredictEdgeSeconds(tune::EdgeMethod& method, const model::ModelConfig& config,
                                  const PredictRequest& request) {
  int64_t tokens = 0;
  EW_ASSIGN(const double seconds, SecondsOfFirstBatch(method, request, &tokens));
  model::StepWorkOptions work;
  work.tokens = tokens;
  work.supervised = tokens;
  work.lora_rank = method.options().lora.r;
  const auto window = [&](const tune::Exit& e) {
    work.run = {e.begin, e.end};
    work.train_from = e.begin;
    return model::CountStep(config, work).total();
  };
  double windows = 0;
  int64_t top = 0;
  for (const tune::Exit& e : method.exits()) {
    windows += window(e) / static_cast<double>(method.exits().size());
    top = std::max(top, e.begin);
  }
  const auto trunk = [&](int64_t layers) {
    work.run = {0, layers};
    work.train_from = layers;
    model::StepWorkOptions forward = work;
    forward.supervised = 0;
    forward.lora_rank = 0;
    return layers > 0 ? model::CountStep(config, forward).forward : 0.0;
  };
  const tune::Exit& first = method.exits()[static_cast<size_t>(method.ExitAt(0))];
  const double per_flop = seconds / (window(first) + trunk(first.begin));
  const double scale = per_flop / static_cast<double>(tokens);
  const double trained = TrainedTokens(request);
  const double documents =
      std::min(trained, TokensOf(request.data.train.get()) + TokensOf(request.data.valid.get()));
  return scale *
         (windows * trained + trunk(top) * documents + windows / 3 * ValidatedTokens(request));
}

}  // namespace edgewise::cli
