// edgewise bench kernels, edgewise bench tune|prefill|decode --shape NAME
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>

#include "base/median.h"
#include "base/units.h"
#include "cli/bench_edge.h"
#include "cli/bench_kernels.h"
#include "cli/bench_parts.h"
#include "cli/bench_runs.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "compress/compress_linear.h"
#include "exec/memory.h"
#include "kernels/matmul.h"
#include "model/matrix_form.h"
#include "model/random_packed_model.h"

namespace edgewise::cli {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
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
    app.add_option("--method", runs_.method, "tune: edge, lora, last-n or full")
        ->check(CLI::IsMember({"edge", "lora", "last-n", "full"}))
        ->capture_default_str();
    app.add_option("--last-layers", runs_.last_layers, "tune --method last-n: layers")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--rank,--lora-rank", runs_.rank,
                   "tune: LoRA rank on all linears (default: 8; edge: 32)")
        ->check(CLI::PositiveNumber);
    const size_t before = app.get_options().size();
    DeclareEdge(app, edge_.edge);
    for (size_t i = before; i < app.get_options().size(); ++i) {
      edge_names_.push_back("--" + app.get_options()[i]->get_lnames().front());
    }
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
    app.add_option("--vote", runs_.vote_exits, "decode: so many exits that vote on every token")
        ->check(CLI::Range(0, 64));
    app.add_flag("--recompute,--gradient-checkpointing", runs_.recompute,
                 "tune: keep layer inputs only");
    app.add_option("--steps", runs_.steps,
                   "Measured steps (tune; edge: --documents and --epochs), runs (prefill) or "
                   "tokens (decode)")
        ->check(CLI::Range(1, 1 << 24));
    app.add_option("--seq,--tokens", runs_.tokens, "Tokens of a step, a prompt, or of context")
        ->check(CLI::Range(1, 1 << 24))
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
    app.add_option("--cache-type", runs_.cache_type, "prefill, decode: f32, f16, int8 or int4")
        ->capture_default_str();
    app.add_option("--filter", kernels_.filter, "kernels: extended regular expression on names");
    app.add_option("--min-time", kernels_.min_seconds, "kernels: seconds of each measurement")
        ->check(CLI::Range(0.001, 60.0))
        ->capture_default_str();
    app.add_option("--seed", runs_.seed, "Of the weights and tokens")->capture_default_str();
  }

  Status Run(Invocation& inv) override {
    if (what_.empty())
      return InvalidArgument("say what to measure: kernels, tune, prefill or decode");
    EW_RETURN_IF_ERROR(CheckScopes());
    if (what_ == "kernels") {
      kernels_.shape = shape_;
      return RunBenchKernels(inv, kernels_);
    }
    if (shape_.empty() == base_.empty()) {
      return InvalidArgument("name a shape (--shape) or a directory (--base)");
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
    Result<BenchRun> run = what_ == "prefill"       ? BenchPrefill(inv, *model, runs_)
                           : what_ == "decode"      ? BenchDecode(inv, *model, runs_)
                           : runs_.method == "edge" ? RunEdge(inv, *model)
                                                    : BenchTune(inv, *model, runs_);
    if (!run.ok()) return run.status();
    return Report(inv, *model, *run);
  }

 private:
  // An option that says nothing about what is measured would be believed to.
  Status CheckScopes() const {
    const bool whole = what_ != "kernels", tune = what_ == "tune", decode = what_ == "decode";
    const bool edge = tune && runs_.method == "edge", made = whole && base_.empty();
    const struct {
      bool holds;
      const char* what;
      std::vector<std::string> options;
    } scopes[] = {
        {!whole, "bench kernels", {"--filter", "--min-time"}},
        {whole, "bench tune, prefill and decode", {"--base", "--seq", "--seed"}},
        {whole && !edge,
         "prefill, decode and the other methods of tune (--method lora, ...): edge makes --epochs "
         "passes over --documents",
         {"--steps"}},
        {tune, "bench tune", {"--method", "--recompute"}},
        {edge,
         "bench tune --method edge",
         {"--epochs", "--documents", "--supervised", "--head-skip"}},
        {edge, "bench tune --method edge", edge_names_},
        {edge && !made, "bench tune --method edge --base DIR", {"--memory"}},
        {tune && runs_.method == "last-n", "bench tune --method last-n", {"--last-layers"}},
        {tune ? runs_.method != "full" : decode && runs_.vote_exits > 0,
         "bench tune with LoRA and bench decode --vote",
         {"--rank"}},
        {decode, "bench decode", {"--vote"}},
        {whole && !tune, "bench prefill and decode", {"--cache-type"}},
        {made, "the weights of a --shape", {"--bits"}},
        {made && bits_ == 0, "the weights of a --shape without --bits", {"--dtype"}},
        {made && bits_ != 0,
         "packed weights of a --shape (--bits)",
         {"--sparsity", "--pattern", "--group", "--act-group", "--embedding-bits"}}};
    for (const auto& scope : scopes) {
      for (const std::string& option : scope.options) {
        if (scope.holds || !given_(option.c_str())) continue;
        return InvalidArgument(fmt::format("{} is for {}", option, scope.what));
      }
    }
    return Status::Ok();
  }

  // Of the weights of all linears, zeros counted as weights.
  static Result<double> AverageBits(const model::Model& model) {
    double bits = 0, weights = 0;
    for (int32_t layer = 0; layer < model.config().num_layers(); ++layer) {
      for (const model::LinearKind kind : model::kAllLinears) {
        EW_ASSIGN(const model::MatrixForm form,
                  model::FormOf(model, {model::WeightRole::kLinear, layer, kind}));
        const model::LinearShape shape = model::ShapeOf(model.config(), kind);
        const double count = static_cast<double>(shape.in) * static_cast<double>(shape.out);
        bits += form.bits * count;
        weights += count;
      }
    }
    return bits / weights;
  }

  Result<std::unique_ptr<model::Model>> Made(DType dtype) const {
    Result<model::ModelConfig> config = model::NamedShape(shape_);
    if (!config.ok()) return InvalidArgument("--shape: " + config.status().message());
    return bits_ == 0 ? model::Model::Random(*config, runs_.seed, dtype) : Packed(*config);
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
    options.seed = runs_.seed;
    return model::MakeRandomPackedModel(config, options);
  }

  // The figure is of the whole run: making the trunk's states is part of it.
  Result<BenchRun> RunEdge(Invocation& inv, const model::Model& model) {
    edge_.rank = runs_.rank;
    if (!edge_.edge.distill.empty()) return InvalidArgument("--distill is for tune");
    if (edge_.edge.paper_mode) {
      SetPaperMode(given_, &edge_.edge);
      if (edge_.rank == 0) edge_.rank = 8;
      if (!given_("--head-skip")) edge_.head_skip = 0;
    }
    edge_.tokens = runs_.tokens;
    edge_.recompute = runs_.recompute;
    edge_.seed = runs_.seed;
    EW_ASSIGN(EdgeBenchResult r, RunEdgeBench(inv, model, edge_));
    BenchRun out;
    out.tokens = r.tokens;
    out.seconds = {r.seconds};
    out.flops = r.flops;
    out.peak_bytes = r.peak_bytes;
    out.details = std::move(r.details);
    out.details["method"] = runs_.method;
    out.details["run_seconds"] = r.seconds;
    out.details["step_seconds_median"] = Median(r.step_seconds);
    out.compare = [this, described = r.last_window, times = r.times, steps = r.timed_steps] {
      return ComparePrediction(*ctx_, described, times, steps);
    };
    return out;
  }

  Status Report(Invocation& inv, const model::Model& model, const BenchRun& run) {
    // Memory first: the measurement of the peak takes some of its own.
    const int64_t peak_bytes =
        run.peak_bytes > 0 ? run.peak_bytes : ReadProcessMemory().peak_rss_bytes;
    const double median = Median(run.seconds);
    const double gflops = run.flops / median * 1e-9;
    const double peak = MeasurePeakGflops(*ctx_);
    OrderedJson json;
    json["bench"] = what_;
    json["shape"] = base_.empty() ? shape_ : base_;
    json["tokens_per_second"] = static_cast<double>(run.tokens) / median;
    json["peak_rss_bytes"] = peak_bytes;
    json["gflops"] = gflops;
    json["share_of_peak"] = gflops / peak;
    json["peak_gflops"] = peak;
    json["tokens"] = run.tokens;
    json["seconds_median"] = median;
    json["seconds_min"] = *std::min_element(run.seconds.begin(), run.seconds.end());
    json["seconds_max"] = *std::max_element(run.seconds.begin(), run.seconds.end());
    json["repeats"] = run.seconds.size();
    json["weight_bytes"] = model.weight_bytes();
    if (!base_.empty()) {
      EW_ASSIGN(json["average_bits"], AverageBits(model));
    } else if (bits_ == 0) {
      json["dtype"] = dtype_;
    } else {
      json["bits"] = bits_;
      json["sparsity"] = sparsity_;
      json["pattern"] = sparsity_ > 0 ? pattern_ : "dense";
      json["group"] = group_;
    }
    json["threads"] = ctx_->threads();
    json["isa"] = IsaName(ctx_->isa());
    json["cpu"] = ctx_->cpu().name;
    for (auto& [key, value] : run.details.items()) json[key] = value;
    // Last, since it takes memory and time of its own.
    if (run.compare) {
      EW_ASSIGN(const OrderedJson compared, run.compare());
      for (auto& [key, value] : compared.items()) json[key] = value;
    }
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

  ExecContext* ctx_ = nullptr;
  GivenFn given_;
  std::vector<std::string> edge_names_;  // of the options that only method edge has
  BenchOptions runs_{.method = "edge"};
  EdgeBenchOptions edge_;
  bench::KernelBenchOptions kernels_;
  std::string what_, shape_, base_, memory_, dtype_ = "fp32", pattern_ = "unstructured";
  int bits_ = 0, group_ = 64, act_group_ = -1, embedding_bits_ = 8;
  double sparsity_ = 0;
};

}  // namespace

std::unique_ptr<Command> MakeBench() { return std::make_unique<Bench>(); }

}  // namespace edgewise::cli
