// edgewise plan MODEL | --shape NAME --memory M: how a tuning step would run on a device.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/commands.h"
#include "cli/edge_options.h"
#include "cli/model_options.h"
#include "cli/tune_predict.h"
#include "exec/memory.h"
#include "formats/hf_dir.h"
#include "io/env.h"
#include "model/model.h"
#include "model/workload.h"
#include "report/table.h"
#include "schedule/check.h"
#include "schedule/measure.h"
#include "schedule/search.h"
#include "schedule/timeline_svg.h"

namespace edgewise::cli {
namespace {

const char* Traversal(const plan::Choice& c) {
  if (c.micro_batches == 1) return "one micro-batch";
  if (c.group == 1) return "row by row";
  return c.group == c.micro_batches ? "column by column" : "mixed";
}

std::string RecomputeText(const plan::Choice& c) {
  if (c.recompute == plan::Recompute::kNone) return "";
  return fmt::format(", activations {}recomputed{}",
                     c.recompute == plan::Recompute::kMlp ? "of the MLPs " : "",
                     c.mlp_tokens > 0 && c.mlp_tokens < c.tokens
                         ? fmt::format(", {} tokens at a time through an MLP", c.mlp_tokens)
                         : "");
}

std::string PlanText(const plan::Plan& p) {
  const plan::Choice& c = p.choice;
  std::string text = fmt::format("{}{}, {}: {:.3f} s a step, peak {}\n", p.device,
                                 p.simulated ? " (simulated)" : "", p.workload.method,
                                 p.predicted_seconds, FormatBytes(p.predicted_peak_bytes));
  text += fmt::format("order: {} ({} micro-batches of {} tokens, {} together){}\n", Traversal(c),
                      c.micro_batches, c.tokens, c.group, RecomputeText(c));
  text += fmt::format("weights: {} of {} in memory, {} read a step", FormatBytes(c.weight_budget),
                      FormatBytes(p.workload.weight_bytes()), FormatBytes(p.loaded_bytes));
  if (p.stored_bytes > 0) {
    text +=
        fmt::format("\nactivations: those of {} layers pass through the disk, {} written a step",
                    p.workload.spilled_layers(c.layers_in_memory), FormatBytes(p.stored_bytes));
  }
  text += fmt::format(
      "\nstreams: compute {:.3f} s, load {:.3f} s, store {:.3f} s; perfect overlap would take "
      "{:.3f} "
      "s\n{} plans compared{}\n\n",
      p.streams.compute, p.streams.load, p.streams.store, p.streams.slowest(), p.candidates,
      p.seed != 0 ? fmt::format(" (annealed, seed {})", p.seed) : "");
  report::Table table({"stage", "compute ms", "load ms", "bound by"});
  for (const plan::StageCost& s : p.stages) {
    table.AddRow({s.name, fmt::format("{:.2f}", 1e3 * s.seconds),
                  fmt::format("{:.2f}", 1e3 * s.load_seconds), s.bound});
  }
  return text + table.Render();
}

class PlanCommand : public Command {
 public:
  std::string name() const override { return "plan"; }
  std::string summary() const override { return "Plan a tuning step for a memory limit"; }

  void Declare(CLI::App& app) override {
    std::string shapes;
    for (const std::string& shape : model::NamedShapes()) shapes += " " + shape;
    app.add_option("model,-m,--model", model_, "Hugging Face directory, GGUF file or hub id");
    app.add_option("--shape", shape_, "Instead of a model, one of:" + shapes);
    AddSize(app, "--memory", memory_, "Most resident memory, for example 2GiB");
    app.add_option("--method", method_, "edge, lora, last-n, full")
        ->check(CLI::IsMember({"edge", "lora", "last-n", "full"}))
        ->capture_default_str();
    app.add_option("--tokens,--seq", tokens_, "Tokens of a micro-batch")
        ->check(CLI::Range(1, 1 << 20))
        ->capture_default_str();
    app.add_option("--micro-batches,--grad-accum", micro_batches_, "Micro-batches of a step")
        ->check(CLI::Range(1, 4096))
        ->capture_default_str();
    app.add_option("--rank,--lora-rank", rank_, "LoRA rank on all linears (default: 8; edge: 32)")
        ->check(CLI::PositiveNumber);
    app.add_option("--last-layers", options_.last_layers, "last-n: layers")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option("--exits", exits_, "edge: windows, each with its exit; the last is planned")
        ->check(CLI::PositiveNumber)
        ->capture_default_str();
    app.add_option(
           "--first-layer", first_layer_,
           "edge: layers below this one are never tuned (default: the lower three quarters)")
        ->check(CLI::NonNegativeNumber);
    app.add_option("--head-lora-rank", head_rank_,
                   "edge: LoRA on the head; 0: none (default: the rank of the window)")
        ->check(CLI::Range(0, 4096));
    app.add_option("--backward", backward_,
                   "edge: gradients through packed weights in fp32 (exact) or int8 (integer)")
        ->check(CLI::IsMember({"exact", "integer"}))
        ->capture_default_str();
    app.add_option("--supervised", options_.supervised, "Share of the tokens that carry loss")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    app.add_option("--bits", options_.form.bits, "--shape: bits of a weight; 16 and 32 are floats")
        ->check(CLI::IsMember({2, 3, 4, 5, 6, 8, 16, 32}))
        ->capture_default_str();
    app.add_option("--sparsity", options_.form.sparsity, "--shape: share of zero weights")
        ->check(CLI::Range(0.0, 0.95))
        ->capture_default_str();
    app.add_flag("--block", options_.form.blocks, "--shape: zeros in whole blocks");
    app.add_option("--head-bits", options_.form.head_bits, "--shape: of embedding and head")
        ->capture_default_str();
    app.add_option("--device", device_, "A device file instead of this machine's profile");
    app.add_option("--order", order_,
                   "Only this traversal: any, row, column, micro-batches of a group")
        ->check([](const std::string& text) { return ParseOrder(text, "any").status().message(); })
        ->capture_default_str();
    app.add_flag("--split", split_, "Micro-batches may be made smaller, in halves");
    app.add_flag("--no-overlap", no_overlap_, "Nothing is read while something computes");
    app.add_option(
           "--spill", spill_,
           "Activations on disk: never, auto (where nothing fits otherwise, or to save more "
           "than a tenth of the time), always (wherever it is faster)")
        ->check(CLI::IsMember({"never", "auto", "always"}))
        ->capture_default_str();
    app.add_flag("--page-cache", search_.cached_disk, "Weights are read through the page cache");
    app.add_option("--seed", search_.seed, "Of the search")->capture_default_str();
    app.add_option("--svg", svg_, "Write the timeline here");
    app.add_option("-o,--output", output_, "Write the plan here as JSON");
  }

  Status Run(Invocation& inv) override {
    if (model_.empty() == shape_.empty()) return InvalidArgument("name a MODEL or a --shape");
    EW_ASSIGN(options_.method, model::ParseWorkloadMethod(method_));
    std::unique_ptr<model::Model> model;
    model::ModelConfig config;
    if (!shape_.empty()) {
      Result<model::ModelConfig> named = model::NamedShape(shape_);
      if (!named.ok()) return InvalidArgument("--shape: " + named.status().message());
      config = *named;
    } else {
      EW_ASSIGN(const formats::ModelLocation location, formats::ResolveModel(model_));
      EW_ASSIGN(model, model::Model::Load(location.path));
      config = model->config();
    }
    plan::Device device;
    if (device_.empty()) {
      EW_ASSIGN(device, MeasuredDevice(inv));
    } else {
      EW_ASSIGN(device, schedule::LoadDevice(device_));
    }
    if (!memory_.empty()) {
      Result<int64_t> limit = ParseBytes(memory_);
      if (!limit.ok()) return InvalidArgument("--memory: " + limit.status().message());
      search_.memory_limit = *limit;
    } else {
      // Of this machine the limit that is in force now, not the one of when it was measured.
      const int64_t limit = device_.empty() ? DetectMemoryLimit().bytes : device.memory_limit;
      search_.memory_limit = device.memory().bytes > 0 ? device.memory().bytes : limit;
    }
    const bool edge = options_.method == model::WorkloadMethod::kEdge;
    options_.rank = rank_ > 0 ? rank_ : edge ? kEdgeRank : 8;
    if (edge) {
      options_.exits = exits_;
      options_.first_layer = first_layer_ >= 0 ? first_layer_ : config.num_layers() * 3 / 4;
      options_.head_rank = head_rank_ >= 0 ? head_rank_ : options_.rank;
      options_.integer_backward = backward_ == "integer";
    }
    search_.tokens = tokens_ * micro_batches_;
    search_.max_tokens = tokens_;
    search_.split_batches = split_;
    search_.spill = ParseUse(spill_);
    search_.overlap = !no_overlap_;
    search_.uncertainty = device.simulated ? 0 : schedule::kMeasuredUncertainty;
    EW_ASSIGN(search_.group, ParseOrder(order_, "any"));
    if (device.threads > 0) options_.threads = device.threads;
    const schedule::DescribeFn describe =
        [&](const plan::Choice& choice) -> Result<plan::Workload> {
      model::WorkloadOptions o = options_;
      o.tokens = choice.tokens;
      o.micro_batches = choice.micro_batches;
      o.recompute = choice.recompute;
      o.mlp_tokens = choice.mlp_tokens;
      EW_ASSIGN(plan::Workload w, model::DescribeStep(config, model.get(), o));
      w.model = shape_.empty() ? model_ : shape_;
      return w;
    };
    EW_ASSIGN(const plan::Plan plan, schedule::Search(device, describe, search_));
    EW_RETURN_IF_ERROR(schedule::CheckPlan(plan));
    OrderedJson json = plan::ToJson(plan);
    if (!output_.empty()) {
      EW_RETURN_IF_ERROR(WriteFileAtomic(PosixEnv(), output_, DumpJson(json, 1) + "\n"));
    }
    if (!svg_.empty()) {
      EW_RETURN_IF_ERROR(WriteFileAtomic(PosixEnv(), svg_, schedule::TimelineSvg(plan)));
    }
    inv.console().SetResult(std::move(json), PlanText(plan));
    return Status::Ok();
  }

 private:
  std::string model_, shape_, memory_, method_ = "edge", device_, order_ = "any", spill_ = "auto",
                                       svg_, output_;
  std::string backward_ = "integer";
  int64_t tokens_ = 512, micro_batches_ = 1;
  int64_t exits_ = 1, rank_ = 0, head_rank_ = -1, first_layer_ = -1;  // the last three: not named
  bool split_ = false, no_overlap_ = false;
  model::WorkloadOptions options_;
  schedule::SearchOptions search_;
};

}  // namespace

std::unique_ptr<Command> MakePlan() { return std::make_unique<PlanCommand>(); }

}  // namespace edgewise::cli
