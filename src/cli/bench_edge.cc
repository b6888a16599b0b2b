#include "cli/bench_edge.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "base/rng.h"
#include "cli/commands.h"
#include "cli/run_file.h"
#include "exec/memory.h"
#include "io/env.h"
#include "model/flops.h"
#include "model/weight_stream.h"
#include "model/workload.h"
#include "tune/edge_method.h"
#include "tune/memory_estimate.h"
#include "tune/optimizer.h"

namespace edgewise::cli {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

TokenBatch Document(const std::vector<int32_t>& ids, double supervised) {
  TokenBatch batch;
  batch.ids = ids;
  batch.positions.resize(ids.size());
  std::iota(batch.positions.begin(), batch.positions.end(), 0);
  batch.first_key.assign(ids.size(), 0);
  batch.targets.assign(ids.size(), TokenBatch::kNoTarget);
  const auto learned = static_cast<size_t>(supervised * static_cast<double>(ids.size() - 1));
  for (size_t t = ids.size() - 1 - learned; t + 1 < ids.size(); ++t) batch.targets[t] = ids[t + 1];
  return batch;
}

// A folder of its own that is gone afterwards.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = TemporaryDirectory() + "/edgewise-bench-XXXXXX";
    if (::mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~TemporaryFolder() {
    if (!path_.empty()) (void)PosixEnv().RemoveAll(path_);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace

Result<EdgeBenchResult> RunEdgeBench(Invocation& inv, const model::Model& model,
                                     const EdgeBenchOptions& o) {
  const int64_t layers = model.config().num_layers();
  EW_ASSIGN(ExecContext * exec, inv.Exec());
  const TemporaryFolder folder;
  if (folder.path().empty()) return IoError("no folder for temporary files could be made");
  std::vector<std::vector<int32_t>> documents;
  Rng rng(o.seed, RngStream::kTest);
  for (int64_t d = 0; d < o.documents; ++d) {
    auto& ids = documents.emplace_back(static_cast<size_t>(o.tokens));
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(rng.NextBelow(static_cast<uint64_t>(model.config().vocab)));
    }
  }
  tune::EdgeOptions options;
  options.lora.r = o.rank > 0 ? o.rank : kEdgeRank;
  options.lora.lora_alpha = 2 * static_cast<double>(options.lora.r);
  options.lora.targets = formats::LoraConfig::Targets::kAllLinear;
  EW_RETURN_IF_ERROR(ApplyEdge(o.edge, layers, folder.path(), &options));
  options.total_steps = o.documents * o.epochs;
  if (o.recompute) options.recompute = plan::Recompute::kLayer;
  options.head_skip_below = static_cast<float>(o.head_skip);
  EdgeBenchResult out;
  options.times = &out.times;
  int window = -1;
  const double start = Now();
  EW_ASSIGN(auto method, tune::EdgeMethod::Create(*exec, model, options, documents, o.tokens,
                                                  &inv.stop(), nullptr));
  tune::MemoryRequest request;
  request.method.lora = options.lora;
  request.max_tokens = o.tokens;
  request.runtime_bytes = o.program_bytes;
  request.pass = [&](const tune::ModelMethodOptions& m, int64_t max_tokens) {
    method->SetRecompute(m.recompute, m.mlp_rows);
    return method->MemoryNeeded(max_tokens);
  };
  for (const model::Parameter& p : method->params()) request.trained += p.count;
  if (model.stream() != nullptr) {
    EW_ASSIGN(const tune::MemoryFit fit, tune::FitStreamed(*exec, model, request, o.memory_limit));
    EW_RETURN_IF_ERROR(model.stream()->SetBudget(fit.weight_budget));
    method->SetRecompute(fit.recompute, fit.mlp_rows);
    out.details["memory_limit"] = o.memory_limit;
    out.details["weight_budget"] = fit.weight_budget;
  }
  tune::AdamW optimizer({}, method->params());
  std::vector<double> losses;
  double update_seconds = 0;
  for (int64_t step = 0; step < options.total_steps; ++step) {
    if (inv.stop().load()) return Status(StatusCode::kInterrupted, "stopped");
    const double begin = Now();
    std::vector<int32_t> active;
    EW_RETURN_IF_ERROR(method->BeginStep(step, &active));
    const double began = Now();
    out.cache_seconds += began - begin;
    // A window's first step touches memory that is not there yet.
    const bool first = method->ExitAt(step) != window;
    window = method->ExitAt(step);
    const TokenBatch batch =
        Document(documents[static_cast<size_t>(step % o.documents)], o.supervised);
    const auto labelled =
        std::count_if(batch.targets.begin(), batch.targets.end(), [](int32_t t) { return t >= 0; });
    if (labelled == 0) return InvalidArgument("no token would be learned");
    EW_ASSIGN(const tune::LossSum loss,
              method->Micro(batch, {.step = step,
                                    .micro = 0,
                                    .seed = o.seed,
                                    .grad_scale = 1.0 / static_cast<double>(labelled)}));
    {
      const double update = Now();
      const model::PartTimer timer(&out.times, plan::KernelKind::kOptimizer);
      optimizer.Step(*exec, active, 1e-4,
                     optimizer.ClipCoefficient(optimizer.GradNorm(*exec, active)));
      update_seconds += Now() - update;
    }
    ++out.timed_steps;
    if (first) out.times = {}, out.timed_steps = 0;
    EW_RETURN_IF_ERROR(method->EndStep(step, loss, true));
    out.step_seconds.push_back(Now() - began);
    losses.push_back(loss.mean());
    out.tokens += o.tokens;
    const tune::Exit exit = method->exits()[static_cast<size_t>(method->ExitAt(step))];
    model::StepWorkOptions work;
    work.tokens = o.tokens;
    work.supervised = labelled;
    work.run = {exit.begin, exit.end};
    work.train_from = exit.begin;
    work.lora_rank = options.lora.r;
    work.recompute = o.recompute;
    out.flops += model::CountStep(model.config(), work).total();
  }
  out.seconds = Now() - start;
  model::WorkloadOptions described;
  described.method = model::WorkloadMethod::kEdge;
  described.tokens = o.tokens;
  described.rank = options.lora.r;
  described.head_rank = options.head_lora_rank;
  described.integer_backward = options.backward == kernels::BackwardMode::kInteger;
  described.supervised =
      o.supervised * static_cast<double>(o.tokens - 1) / static_cast<double>(o.tokens);
  described.recompute = options.recompute;
  const tune::Exit& last = method->exits()[static_cast<size_t>(window)];
  described.window = {last.begin, last.end};
  EW_ASSIGN(out.last_window, model::DescribeStep(model.config(), &model, described));
  const double flops_per_token = [&] {
    model::StepWorkOptions work;
    work.tokens = o.tokens;
    work.supervised = 0;
    int64_t top = 0;
    for (const tune::Exit& e : method->exits()) top = std::max(top, e.begin);
    work.run = {0, top};
    work.train_from = top;
    return model::CountStep(model.config(), work).forward / static_cast<double>(o.tokens);
  }();
  const auto trunk_tokens = method->trunk().computed_tokens();
  out.flops += flops_per_token * static_cast<double>(trunk_tokens);
  out.details["epochs"] = o.epochs;
  out.details["documents"] = o.documents;
  out.details["rank"] = options.lora.r;
  out.details["head_lora_rank"] = options.head_lora_rank;
  out.details["exits"] = method->exits().size();
  out.details["window_begin"] = method->exits().back().begin;
  out.details["trunk_tokens"] = trunk_tokens;
  out.details["cache_bytes"] =
      method->trunk().cache() != nullptr ? method->trunk().cache()->file_bytes() : 0;
  out.details["cache_seconds"] = out.cache_seconds;
  const tune::EdgeTimes& times = method->times();
  out.details["seconds_of"] = {{"trunk", times.trunk},
                               {"start_states", times.start},
                               {"window_forward", times.pass.forward},
                               {"head", times.pass.head},
                               {"window_backward", times.pass.backward},
                               {"optimizer", update_seconds}};
  const kernels::HeadLossResult& head = method->head_blocks();
  if (o.head_skip > 0 && head.blocks > 0) {
    const auto share = [&](int64_t n) {
      return static_cast<double>(n) / static_cast<double>(head.blocks);
    };
    out.details["head_blocks_in_gradient"] = {{"of_hidden_states", share(head.dhidden_blocks)},
                                              {"of_head", share(head.dhead_blocks)}};
  }
  out.details["supervised_share"] = o.supervised;
  out.details["loss_first"] = losses.front();
  out.details["loss_last"] = losses.back();
  // (The estimate makes adapters of its own for a moment.)
  const int64_t peak = ReadProcessMemory().peak_rss_bytes;
  EW_ASSIGN(tune::MemoryEstimate memory, tune::EstimateMemory(*exec, model, request));
  if (const model::WeightStream* stream = model.stream(); stream != nullptr) {
    const model::StreamStats stats = stream->stats();
    memory.weights += stream->budget_bytes() - stream->total_bytes();
    out.details["weights_read_bytes"] = stats.bytes;
    out.details["weights_wait_seconds"] = stats.wait_seconds;
  }
  out.details["memory"] = MemoryTrace(
      memory, method->trunk().cache() != nullptr ? method->trunk().cache()->memory_bytes() : 0,
      peak);
  out.peak_bytes = peak;
  return out;
}

}  // namespace edgewise::cli
