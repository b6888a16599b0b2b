#include "cli/bench_runs.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>

#include "base/median.h"
#include "base/rng.h"
#include "cli/bench_parts.h"
#include "infer/token_model.h"
#include "model/decoder.h"
#include "model/flops.h"
#include "model/workload.h"
#include "tune/model_method.h"
#include "tune/optimizer.h"

namespace edgewise::cli {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<int32_t> RandomTokens(int64_t n, int64_t vocab, uint64_t seed) {
  Rng rng(seed, RngStream::kTest);
  std::vector<int32_t> ids(static_cast<size_t>(n));
  for (int32_t& id : ids) {
    id = static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(vocab)));
  }
  return ids;
}

}  // namespace

Result<BenchRun> BenchTune(Invocation& inv, model::Model& model, const BenchOptions& o) {
  EW_ASSIGN(ExecContext * exec, inv.Exec());
  BenchRun out;
  out.tokens = o.tokens;
  if (o.tokens < 2) return InvalidArgument("--tokens: a step learns from 2 tokens at least");
  tune::ModelMethodOptions options;
  EW_ASSIGN(options.kind, tune::ParseMethod(o.method));
  const int64_t rank = o.rank;
  options.lora.r = rank;
  options.lora.lora_alpha = static_cast<double>(2 * rank);
  options.lora.targets = formats::LoraConfig::Targets::kAllLinear;
  options.last_layers = std::min(o.last_layers, model.config().num_layers());
  if (o.recompute) options.recompute = plan::Recompute::kLayer;
  model::PartTimes times;
  options.times = &times;
  EW_ASSIGN(auto method, tune::ModelMethod::Create(*exec, model, options, o.tokens));
  tune::AdamW optimizer({}, method->params());

  TokenBatch batch;
  batch.ids = RandomTokens(o.tokens, model.config().vocab, o.seed);
  batch.positions.resize(batch.ids.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.first_key.assign(batch.ids.size(), 0);
  batch.targets.assign(batch.ids.begin() + 1, batch.ids.end());
  batch.targets.push_back(TokenBatch::kNoTarget);

  const int64_t steps = o.steps > 0 ? o.steps : 5;
  std::vector<double> losses;
  // The first step plans and touches every buffer; it is not counted.
  for (int64_t step = 0; step <= steps; ++step) {
    if (inv.stop().load()) return Status(StatusCode::kInterrupted, "stopped");
    const double start = Now();
    std::vector<int32_t> active;
    EW_RETURN_IF_ERROR(method->BeginStep(step, &active));
    EW_ASSIGN(const tune::LossSum loss,
              method->Micro(batch, {.step = step,
                                    .micro = 0,
                                    .seed = o.seed,
                                    .grad_scale = 1.0 / static_cast<double>(o.tokens - 1)}));
    {
      const model::PartTimer timer(&times, plan::KernelKind::kOptimizer);
      const double norm = optimizer.GradNorm(*exec, active);
      optimizer.Step(*exec, active, 1e-4, optimizer.ClipCoefficient(norm));
    }
    EW_RETURN_IF_ERROR(method->EndStep(step, loss, true));
    if (step > 0) out.seconds.push_back(Now() - start);
    if (step == 0) times = {};
    losses.push_back(loss.mean());
  }
  model::StepWorkOptions work;
  work.tokens = o.tokens;
  work.supervised = o.tokens - 1;
  work.run = {0, model.config().num_layers()};
  work.full = options.kind == tune::MethodKind::kFull;
  work.train_from = options.kind == tune::MethodKind::kLastN
                        ? model.config().num_layers() - options.last_layers
                        : 0;
  work.lora_rank = work.full ? 0 : rank;
  work.recompute = o.recompute;
  out.details["method"] = o.method;
  out.details["loss_first"] = losses.front();
  out.details["loss_last"] = losses.back();
  out.details["planned_bytes"] = method->MemoryNeeded().total();
  model::WorkloadOptions step;
  EW_ASSIGN(step.method, model::ParseWorkloadMethod(o.method));
  step.tokens = o.tokens;
  step.supervised = static_cast<double>(o.tokens - 1) / static_cast<double>(o.tokens);
  step.rank = rank;
  step.last_layers = options.last_layers;
  step.recompute = options.recompute;
  EW_ASSIGN(const plan::Workload described, model::DescribeStep(model.config(), &model, step));
  out.flops = model::CountStep(model.config(), work).total();
  out.compare = [exec, described, times, steps] {
    return ComparePrediction(*exec, described, times, steps);
  };
  return out;
}

Result<BenchRun> BenchPrefill(Invocation& inv, const model::Model& model, const BenchOptions& o) {
  EW_ASSIGN(ExecContext * exec, inv.Exec());
  BenchRun out;
  out.tokens = o.tokens;
  model::DecoderOptions options;
  options.max_context = o.tokens;
  options.prefill_chunk = std::min<int64_t>(o.tokens, 512);
  EW_ASSIGN(options.kv_form, model::ParseKvForm(o.cache_type).WithContext("--cache-type"));
  EW_ASSIGN(auto decoder, model::Decoder::Create(*exec, model, options));
  const std::vector<int32_t> ids = RandomTokens(o.tokens, model.config().vocab, o.seed);
  const int64_t runs = o.steps > 0 ? o.steps : 5;
  for (int64_t run = 0; run <= runs; ++run) {
    if (inv.stop().load()) return Status(StatusCode::kInterrupted, "stopped");
    decoder->Truncate(0);
    const double start = Now();
    EW_RETURN_IF_ERROR(decoder->Prefill(ids).status());
    if (run > 0) out.seconds.push_back(Now() - start);
  }
  model::StepWorkOptions work;
  work.tokens = o.tokens;
  work.supervised = 1;  // logits of the last token
  work.run = {0, model.config().num_layers()};
  work.train_from = work.run.end;
  out.details["kv_bytes"] = decoder->kv_bytes();
  out.flops = model::CountStep(model.config(), work).total();
  return out;
}

Result<BenchRun> BenchDecode(Invocation& inv, const model::Model& model, const BenchOptions& o) {
  EW_ASSIGN(ExecContext * exec, inv.Exec());
  BenchRun out;
  out.tokens = 1;
  const int64_t steps = o.steps > 0 ? o.steps : 32;
  model::DecoderOptions options;
  options.max_context = o.tokens + steps + 1;
  EW_ASSIGN(options.kv_form, model::ParseKvForm(o.cache_type).WithContext("--cache-type"));
  std::optional<model::ExitSet> exits;
  std::optional<infer::Voter> voter;
  std::unique_ptr<infer::TokenModel> decoder;
  int64_t kv_bytes = 0;
  if (o.vote_exits > 0) {
    EW_ASSIGN(exits, model::ExitSet::Random(model.config(), o.vote_exits, o.rank, o.seed));
    infer::VotePolicy policy;
    policy.config.rule = vote::Rule::kWeighted;
    policy.config.temperatures.assign(static_cast<size_t>(o.vote_exits), 1.0);
    policy.config.weights.assign(static_cast<size_t>(o.vote_exits),
                                 1.0 / static_cast<double>(o.vote_exits));
    voter.emplace(*exec, std::move(policy), static_cast<int>(o.vote_exits), model.config().vocab);
    EW_ASSIGN(auto forked, model::ForkedDecoder::Create(*exec, model, *exits, options));
    kv_bytes = forked->kv_bytes();
    decoder = std::make_unique<infer::VotingTokenModel>(std::move(forked), *voter);
  } else {
    EW_ASSIGN(auto plain, model::Decoder::Create(*exec, model, options));
    kv_bytes = plain->kv_bytes();
    decoder = std::make_unique<infer::PlainTokenModel>(std::move(plain));
  }
  const std::vector<int32_t> ids = RandomTokens(o.tokens + steps + 1, model.config().vocab, o.seed);
  const std::span<const int32_t> all(ids);
  EW_RETURN_IF_ERROR(decoder->Prefill(all.first(static_cast<size_t>(o.tokens))).status());
  for (int64_t i = 0; i <= steps; ++i) {
    if (inv.stop().load()) return Status(StatusCode::kInterrupted, "stopped");
    const double start = Now();
    EW_RETURN_IF_ERROR(decoder->Step(ids[static_cast<size_t>(o.tokens + i)]).status());
    if (i > 0) out.seconds.push_back(Now() - start);
  }
  out.details["kv_bytes"] = kv_bytes;
  if (o.vote_exits > 0) out.details["vote_exits"] = o.vote_exits;
  out.details["weight_gbytes_per_second"] =
      static_cast<double>(model.weight_bytes()) / Median(out.seconds) * 1e-9;
  out.flops = model::DecodeFlops(model.config(), o.tokens + steps / 2);
  return out;
}

}  // namespace edgewise::cli
