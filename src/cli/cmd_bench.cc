// edgewise bench kernels, edgewise bench tune|prefill|decode --shape NAME
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <numeric>

#include "base/rng.h"
#include "base/units.h"
#include "cli/bench_edge.h"
#include "cli/bench_kernels.h"
#include "cli/bench_parts.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "compress/compress_linear.h"
#include "exec/memory.h"
#include "infer/token_model.h"
#include "kernels/matmul.h"
#include "model/decoder.h"
#include "model/flops.h"
#include "model/random_packed_model.h"
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

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

// GFLOP/s of an fp32 matrix product whose operands stay in cache: what the share of peak is of. The
// best of several, in this process and at this moment, so that it can be held against the rest.
double MeasurePeakGflops(ExecContext& ctx) {
  constexpr int64_t n = 768;
  std::vector<float> a(n * n, 0.5f), b(n * n, 0.25f), c(n * n);
  double best = 0;
  for (int i = 0; i < 8; ++i) {
    const double start = Now();
    kernels::MatMulNT(ctx, n, n, n, 1.0f, a.data(), n, kernels::WeightRef::Dense(b.data(), n, n),
                      c.data(), n);
    best = std::max(best, 2.0 * n * n * n / (Now() - start) * 1e-9);
  }
  return best;
}

class Bench : public Command {
 public:
  std::string name() const override { return "bench"; }
  std::string summary() const override { return "Measure speed and memory on random weights"; }

  void Declare(CLI::App& app) override {
    app.add_option("what", what_, "kernels, tune, prefill or decode")
        ->check(CLI::IsMember({"kernels", "tune", "prefill", "decode"}));
    std::string shapes;
    for (const std::string& shape : model::NamedShapes()) shapes += " " + shape;
    app.add_option("--shape", shape_, "One of:" + shapes);
    app.add_option(
        "--base", base_,
        "tune, prefill, decode: a base of 'edgewise random-base' or any other directory, "
        "instead of --shape");
    AddSize(app, "--memory", memory_,
            "tune --method edge --base: most resident memory; weights are read as needed");
    app.add_option("--method", method_, "tune: edge, lora, last-n or full")
        ->check(CLI::IsMember({"edge", "lora", "last-n", "full"}))
        ->capture_default_str();
    app.add_option("--last-layers", last_layers_, "tune --method last-n: layers")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--rank,--lora-rank", rank_,
                   "tune: LoRA rank on all linears (default: 8; edge: 32)")
        ->check(CLI::PositiveNumber);
    DeclareEdge(app, edge_.edge);
    given_ = [&app](const char* name) { return app.get_option(name)->count() > 0; };
    app.add_option("--epochs", edge_.epochs, "tune --method edge: passes over the documents")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--documents", edge_.documents,
                   "tune --method edge: steps of one pass, one document each")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--supervised", edge_.supervised,
                   "tune --method edge: share of the tokens that are learned")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    app.add_option("--head-skip", edge_.head_skip,
                   "tune --method edge: leave blocks of the vocabulary below this probability out "
                   "of the gradient")
        ->check(CLI::Range(0.0, 0.99))
        ->capture_default_str();
    app.add_option("--vote", vote_exits_, "decode: so many exits that vote on every token")
        ->check(CLI::Range(0, 64));
    app.add_flag("--recompute,--gradient-checkpointing", recompute_,
                 "tune: keep layer inputs only");
    app.add_option("--steps", steps_,
                   "Measured steps (tune; edge: --documents and --epochs), runs (prefill) or "
                   "tokens (decode)")
        ->check(CLI::PositiveNumber);
    app.add_option("--seq,--tokens", tokens_, "Tokens of a step, a prompt, or of context")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--dtype", dtype_, "Type of the weights: fp32, bf16 or fp16")
        ->capture_default_str();
    app.add_option("--bits", bits_, "Packed weights of 2, 3, 4, 5, 6 or 8 bits instead of --dtype")
        ->check(CLI::IsMember({2, 3, 4, 5, 6, 8}));
    app.add_option("--sparsity", sparsity_, "Packed: share of the weights that is zero")
        ->check(CLI::Range(0.0, 0.95))
        ->capture_default_str();
    app.add_option("--pattern", pattern_, "Packed: unstructured, block, or n:m")
        ->capture_default_str();
    app.add_option("--group", group_, "Packed: columns per scale, 0 for one per row")
        ->check(CLI::IsMember({0, 32, 64, 128}))
        ->capture_default_str();
    app.add_option("--act-group", act_group_,
                   "Packed: columns of activations per scale, 0 for one per token (default: 512)")
        ->check(CLI::IsMember({0, 32, 64, 128, 256, 512}));
    app.add_option("--embedding-bits", embedding_bits_, "Packed: embedding and head, 4 or 8")
        ->check(CLI::IsMember({4, 8}))
        ->capture_default_str();
    app.add_option("--cache-type", cache_type_, "prefill, decode: f32, f16, int8 or int4")
        ->capture_default_str();
    app.add_option("--filter", kernels_.filter, "kernels: extended regular expression on names");
    app.add_option("--min-time", kernels_.min_seconds, "kernels: seconds of each measurement")
        ->check(CLI::Range(0.001, 60.0))
        ->capture_default_str();
    app.add_option("--seed", seed_, "Of the weights and tokens")->capture_default_str();
  }

  Status Run(Invocation& inv) override {
    if (what_.empty())
      return InvalidArgument("say what to measure: kernels, tune, prefill or decode");
    if (what_ == "kernels") {
      kernels_.shape = shape_;
      return RunBenchKernels(inv, kernels_);
    }
    if (shape_.empty() == base_.empty()) {
      return InvalidArgument("name a shape (--shape) or a directory (--base)");
    }
    if (!memory_.empty() && (base_.empty() || what_ != "tune" || method_ != "edge")) {
      return InvalidArgument("--memory is for bench tune --method edge --base DIR");
    }
    Result<model::StorageDType> storage = model::ParseStorageDType(dtype_);
    if (!storage.ok()) return InvalidArgument("--dtype: " + storage.status().message());
    const DType dtype = *storage == model::StorageDType::kBF16  ? DType::kBF16
                        : *storage == model::StorageDType::kF16 ? DType::kF16
                                                                : DType::kF32;
    EW_ASSIGN(ctx_, inv.Exec());
    edge_.program_bytes = ReadProcessMemory().rss_bytes;
    EW_ASSIGN(auto model, base_.empty() ? Made(dtype) : Opened());
    inv.console().Log(
        fmt::format("{}{}: {} parameters, {} threads, {}", shape_, base_,
                    FormatCount(static_cast<double>(model->config().parameter_count())),
                    ctx_->threads(), IsaName(ctx_->isa())));
    if (what_ == "tune") return method_ == "edge" ? RunEdge(inv, *model) : RunTune(inv, *model);
    return what_ == "prefill" ? RunPrefill(inv, *model) : RunDecode(inv, *model);
  }

 private:
  Result<std::unique_ptr<model::Model>> Made(DType dtype) const {
    Result<model::ModelConfig> config = model::NamedShape(shape_);
    if (!config.ok()) return InvalidArgument("--shape: " + config.status().message());
    return bits_ == 0 ? model::Model::Random(*config, seed_, dtype) : Packed(*config);
  }

  Result<std::unique_ptr<model::Model>> Opened() {
    model::LoadOptions load;
    if (!memory_.empty()) {
      Result<int64_t> limit = ParseBytes(memory_);
      if (!limit.ok()) return InvalidArgument("--memory: " + limit.status().message());
      edge_.memory_limit = *limit;
      load.stream.budget_bytes = int64_t{1} << 60;  // until the plan says how much
    }
    return model::Model::Load(base_, load);
  }

  Result<std::unique_ptr<model::Model>> Packed(const model::ModelConfig& config) const {
    compress::CompressionPolicy policy;
    policy.group = group_;
    policy.pattern = pattern_;
    model::RandomPackedOptions options;
    options.linears = compress::FormatOf(16, 16, {bits_, sparsity_}, policy);
    if (act_group_ >= 0) options.linears.act_group = act_group_;
    options.density = 1 - sparsity_;
    options.embedding_bits = options.head_bits = embedding_bits_;
    options.seed = seed_;
    return model::MakeRandomPackedModel(config, options);
  }

  // The figure is of the whole run: making the trunk's states is part of it.
  Status RunEdge(Invocation& inv, const model::Model& model) {
    edge_.rank = rank_ == kDefaultRank ? 0 : rank_;
    if (steps_ > 0) {
      return InvalidArgument(
          "--steps is for the other methods (--method lora, ...): edge makes --epochs passes over "
          "--documents");
    }
    if (!edge_.edge.distill.empty()) return InvalidArgument("--distill is for tune");
    if (edge_.edge.paper_mode) {
      SetPaperMode(given_, &edge_.edge);
      if (rank_ == kDefaultRank) edge_.rank = 8;
      if (!given_("--head-skip")) edge_.head_skip = 0;
    }
    edge_.tokens = tokens_;
    edge_.recompute = recompute_;
    edge_.seed = seed_;
    EW_ASSIGN(EdgeBenchResult r, RunEdgeBench(inv, model, edge_));
    compare_ = [this, described = r.last_window, times = r.times, steps = r.timed_steps] {
      return ComparePrediction(*ctx_, described, times, steps);
    };
    r.details["method"] = method_;
    r.details["run_seconds"] = r.seconds;
    r.details["step_seconds_median"] = Median(r.step_seconds);
    return Report(inv, model, r.tokens, {r.seconds}, r.flops, std::move(r.details), r.peak_bytes);
  }

  Status RunTune(Invocation& inv, model::Model& model) {
    tune::ModelMethodOptions options;
    EW_ASSIGN(options.kind, tune::ParseMethod(method_));
    const int64_t rank = rank_ == kDefaultRank ? 8 : rank_;
    options.lora.r = rank;
    options.lora.lora_alpha = static_cast<double>(2 * rank);
    options.lora.targets = formats::LoraConfig::Targets::kAllLinear;
    options.last_layers = std::min(last_layers_, model.config().num_layers());
    options.recompute = recompute_;
    model::PartTimes times;
    options.times = &times;
    EW_ASSIGN(auto method, tune::ModelMethod::Create(*ctx_, model, options, tokens_));
    tune::AdamW optimizer({}, method->params());

    TokenBatch batch;
    batch.ids = RandomTokens(tokens_, model.config().vocab, seed_);
    batch.positions.resize(batch.ids.size());
    std::iota(batch.positions.begin(), batch.positions.end(), 0);
    batch.first_key.assign(batch.ids.size(), 0);
    batch.targets.assign(batch.ids.begin() + 1, batch.ids.end());
    batch.targets.push_back(TokenBatch::kNoTarget);

    const int64_t steps = steps_ > 0 ? steps_ : 5;
    std::vector<double> seconds;
    std::vector<double> losses;
    // The first step plans and touches every buffer; it is not counted.
    for (int64_t step = 0; step <= steps; ++step) {
      if (inv.stop().load()) return {StatusCode::kInterrupted, "stopped"};
      const double start = Now();
      std::vector<int32_t> active;
      EW_RETURN_IF_ERROR(method->BeginStep(step, &active));
      EW_ASSIGN(const tune::LossSum loss,
                method->Micro(batch, {.step = step,
                                      .micro = 0,
                                      .seed = seed_,
                                      .grad_scale = 1.0 / static_cast<double>(tokens_ - 1)}));
      {
        const model::PartTimer timer(&times, plan::KernelKind::kOptimizer);
        const double norm = optimizer.GradNorm(*ctx_, active);
        optimizer.Step(*ctx_, active, 1e-4, optimizer.ClipCoefficient(norm));
      }
      EW_RETURN_IF_ERROR(method->EndStep(step, loss, true));
      if (step > 0) seconds.push_back(Now() - start);
      if (step == 0) times = {};
      losses.push_back(loss.mean());
    }
    model::StepWorkOptions work;
    work.tokens = tokens_;
    work.supervised = tokens_ - 1;
    work.run = {0, model.config().num_layers()};
    work.full = options.kind == tune::MethodKind::kFull;
    work.train_from = options.kind == tune::MethodKind::kLastN
                          ? model.config().num_layers() - options.last_layers
                          : 0;
    work.lora_rank = work.full ? 0 : rank;
    work.recompute = recompute_;
    OrderedJson extra;
    extra["method"] = method_;
    extra["loss_first"] = losses.front();
    extra["loss_last"] = losses.back();
    extra["planned_bytes"] = method->MemoryNeeded().total();
    model::WorkloadOptions step;
    EW_ASSIGN(step.method, model::ParseWorkloadMethod(method_));
    step.tokens = tokens_;
    step.supervised = static_cast<double>(tokens_ - 1) / static_cast<double>(tokens_);
    step.rank = rank;
    step.last_layers = options.last_layers;
    step.recompute = recompute_;
    EW_ASSIGN(const plan::Workload described, model::DescribeStep(model.config(), &model, step));
    compare_ = [this, described, times, steps] {
      return ComparePrediction(*ctx_, described, times, steps);
    };
    return Report(inv, model, tokens_, seconds, model::CountStep(model.config(), work).total(),
                  std::move(extra));
  }

  Status RunPrefill(Invocation& inv, const model::Model& model) {
    model::DecoderOptions options;
    options.max_context = tokens_;
    options.prefill_chunk = std::min<int64_t>(tokens_, 512);
    EW_ASSIGN(options.kv_form, model::ParseKvForm(cache_type_).WithContext("--cache-type"));
    EW_ASSIGN(auto decoder, model::Decoder::Create(*ctx_, model, options));
    const std::vector<int32_t> ids = RandomTokens(tokens_, model.config().vocab, seed_);
    const int64_t runs = steps_ > 0 ? steps_ : 5;
    std::vector<double> seconds;
    for (int64_t run = 0; run <= runs; ++run) {
      if (inv.stop().load()) return {StatusCode::kInterrupted, "stopped"};
      decoder->Truncate(0);
      const double start = Now();
      EW_RETURN_IF_ERROR(decoder->Prefill(ids).status());
      if (run > 0) seconds.push_back(Now() - start);
    }
    model::StepWorkOptions work;
    work.tokens = tokens_;
    work.supervised = 1;  // logits of the last token
    work.run = {0, model.config().num_layers()};
    work.train_from = work.run.end;
    OrderedJson extra;
    extra["kv_bytes"] = decoder->kv_bytes();
    return Report(inv, model, tokens_, seconds, model::CountStep(model.config(), work).total(),
                  std::move(extra));
  }

  Status RunDecode(Invocation& inv, const model::Model& model) {
    const int64_t steps = steps_ > 0 ? steps_ : 32;
    model::DecoderOptions options;
    options.max_context = tokens_ + steps + 1;
    EW_ASSIGN(options.kv_form, model::ParseKvForm(cache_type_).WithContext("--cache-type"));
    std::optional<model::ExitSet> exits;
    std::optional<infer::Voter> voter;
    std::unique_ptr<infer::TokenModel> decoder;
    int64_t kv_bytes = 0;
    if (vote_exits_ > 0) {
      EW_ASSIGN(exits, model::ExitSet::Random(model.config(), vote_exits_,
                                              rank_ == kDefaultRank ? 8 : rank_, seed_));
      infer::VotePolicy policy;
      policy.config.rule = vote::Rule::kWeighted;
      policy.config.temperatures.assign(static_cast<size_t>(vote_exits_), 1.0);
      policy.config.weights.assign(static_cast<size_t>(vote_exits_),
                                   1.0 / static_cast<double>(vote_exits_));
      voter.emplace(*ctx_, std::move(policy), static_cast<int>(vote_exits_), model.config().vocab);
      EW_ASSIGN(auto forked, model::ForkedDecoder::Create(*ctx_, model, *exits, options));
      kv_bytes = forked->kv_bytes();
      decoder = std::make_unique<infer::VotingTokenModel>(std::move(forked), *voter);
    } else {
      EW_ASSIGN(auto plain, model::Decoder::Create(*ctx_, model, options));
      kv_bytes = plain->kv_bytes();
      decoder = std::make_unique<infer::PlainTokenModel>(std::move(plain));
    }
    const std::vector<int32_t> ids = RandomTokens(tokens_ + steps + 1, model.config().vocab, seed_);
    const std::span<const int32_t> all(ids);
    EW_RETURN_IF_ERROR(decoder->Prefill(all.first(static_cast<size_t>(tokens_))).status());
    std::vector<double> seconds;
    for (int64_t i = 0; i <= steps; ++i) {
      if (inv.stop().load()) return {StatusCode::kInterrupted, "stopped"};
      const double start = Now();
      EW_RETURN_IF_ERROR(decoder->Step(ids[static_cast<size_t>(tokens_ + i)]).status());
      if (i > 0) seconds.push_back(Now() - start);
    }
    OrderedJson extra;
    extra["kv_bytes"] = kv_bytes;
    if (vote_exits_ > 0) extra["vote_exits"] = vote_exits_;
    extra["weight_gbytes_per_second"] =
        static_cast<double>(model.weight_bytes()) / Median(seconds) * 1e-9;
    return Report(inv, model, 1, seconds, model::DecodeFlops(model.config(), tokens_ + steps / 2),
                  std::move(extra));
  }

  Status Report(Invocation& inv, const model::Model& model, int64_t tokens,
                const std::vector<double>& seconds, double flops, OrderedJson extra,
                int64_t peak_bytes = 0) {
    // Memory first: the measurement of the peak takes some of its own.
    if (peak_bytes == 0) peak_bytes = ReadProcessMemory().peak_rss_bytes;
    const double median = Median(seconds);
    const double gflops = flops / median * 1e-9;
    const double peak = MeasurePeakGflops(*ctx_);
    OrderedJson json;
    json["bench"] = what_;
    json["shape"] = base_.empty() ? shape_ : base_;
    json["tokens_per_second"] = static_cast<double>(tokens) / median;
    json["peak_rss_bytes"] = peak_bytes;
    json["gflops"] = gflops;
    json["share_of_peak"] = gflops / peak;
    json["peak_gflops"] = peak;
    json["tokens"] = tokens;
    json["seconds_median"] = median;
    json["seconds_min"] = *std::min_element(seconds.begin(), seconds.end());
    json["seconds_max"] = *std::max_element(seconds.begin(), seconds.end());
    json["repeats"] = seconds.size();
    json["weight_bytes"] = model.weight_bytes();
    if (bits_ == 0) {
      if (base_.empty()) json["dtype"] = dtype_;
    } else {
      json["bits"] = bits_;
      json["sparsity"] = sparsity_;
      json["pattern"] = sparsity_ > 0 ? pattern_ : "dense";
      json["group"] = group_;
    }
    json["threads"] = ctx_->threads();
    json["isa"] = IsaName(ctx_->isa());
    json["cpu"] = ctx_->cpu().name;
    for (auto& [key, value] : extra.items()) json[key] = value;
    // Last, since it takes memory and time of its own.
    if (compare_) {
      EW_ASSIGN(const OrderedJson compared, compare_());
      for (auto& [key, value] : compared.items()) json[key] = value;
    }
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  ExecContext* ctx_ = nullptr;
  GivenFn given_;
  static constexpr int64_t kDefaultRank = 0;
  EdgeBenchOptions edge_;
  std::function<Result<OrderedJson>()> compare_;  // of bench tune, once it is over
  int64_t vote_exits_ = 0;
  std::string what_, shape_, base_, memory_, method_ = "edge", dtype_ = "fp32",
                                             pattern_ = "unstructured", cache_type_ = "f32";
  int bits_ = 0, group_ = 64, act_group_ = -1, embedding_bits_ = 8;
  double sparsity_ = 0;
  bench::KernelBenchOptions kernels_;
  int64_t last_layers_ = 16, rank_ = kDefaultRank, steps_ = 0, tokens_ = 512;
  uint64_t seed_ = 1;
  bool recompute_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeBench() { return std::make_unique<Bench>(); }

}  // namespace edgewise::cli
