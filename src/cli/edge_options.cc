#include "cli/edge_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <limits>

#include "base/units.h"
#include "cli/model_options.h"

namespace edgewise::cli {
namespace {

Result<std::vector<double>> ParseShares(const std::string& text) {
  std::vector<double> shares;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at < end) {
    double value = 0;
    const auto [next, error] = std::from_chars(at, end, value);
    if (error != std::errc() || !(value > 0) || (next < end && *next != ',')) {
      return InvalidArgument(
          fmt::format("--window-steps '{}': expected numbers above 0 as 1,2,4", text));
    }
    shares.push_back(value);
    at = next + (next < end ? 1 : 0);
  }
  return shares;
}

}  // namespace

void DeclareEdge(CLI::App& app, EdgeFlags& f) {
  app.add_option(
         "--exits", f.exits,
         "edge: number of windows, each with its exit (where it is not given, more than one "
         "if nothing fits the memory otherwise)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--windows", f.windows,
                 "edge: tiled (each below its own exit) or rising (each up to the model's end)")
      ->check(CLI::IsMember({"tiled", "rising"}))
      ->capture_default_str();
  app.add_option("--window", f.window,
                 "edge: layers of a tiled window (default: down to the exit below)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--first-layer", f.first_layer,
                 "edge: layers below this one are never tuned (default: the lower three quarters)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--window-steps", f.window_steps,
                 "edge: relative number of steps of each window, as 1,1,2 (default: equal)");
  app.add_option("--trunk", f.trunk,
                 "edge: what lies below a window: frozen (the base alone; several exits vote) or "
                 "cumulative (the windows tuned before)")
      ->check(CLI::IsMember({"frozen", "cumulative"}))
      ->capture_default_str();
  app.add_option("--exit-schedule", f.schedule,
                 "edge: which exit a step tunes: sequential, cyclic, random or adaptive")
      ->check(CLI::IsMember({"sequential", "cyclic", "random", "adaptive"}))
      ->capture_default_str();
  app.add_flag("--rate-per-window", f.rate_per_window,
               "edge: the learning rate goes through its schedule in every window");
  app.add_option("--exit-head", f.head,
                 "edge: shared (the model's head, with a norm gain per exit) or copy (a full head "
                 "per exit)")
      ->check(CLI::IsMember({"shared", "copy"}))
      ->capture_default_str();
  app.add_option(
         "--head-lora-rank", f.head_lora_rank,
         "edge: LoRA on each exit's shared head; 0: none (default: the rank of the windows)")
      ->check(CLI::Range(0, 4096));
  app.add_option("--backward", f.backward,
                 "edge: gradients through packed weights in fp32 (exact) or int8 (integer)")
      ->check(CLI::IsMember({"exact", "integer"}))
      ->capture_default_str();
  app.add_option(
         "--trunk-forward", f.trunk_forward,
         "edge: layers below a window as int8 products (integer) or in fp32 (exact, slow: to "
         "measure what rounding costs)")
      ->check(CLI::IsMember({"exact", "integer"}))
      ->capture_default_str();
  app.add_option("--windows-per-step", f.windows_per_step,
                 "edge: windows that a step tunes, on the mean of their exits' losses")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--fake-quant", f.activation_bits,
                 "edge: round activations to so many bits while tuning, straight-through; 0: not")
      ->check(CLI::IsMember({0, 2, 3, 4, 5, 6, 8}))
      ->capture_default_str();
  app.add_option("--distill", f.distill,
                 "edge: learn from the logits of this model, too (the base before compression)");
  app.add_option("--distill-weight", f.distill_weight, "edge: share of --distill in the loss")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_flag("--whole-head", f.whole_head,
               "edge: all logits of a step at once, to measure what the fused head saves");
  app.add_flag("--paper-mode", f.paper_mode,
               "edge: the choices of the paper's released code, where no option says otherwise: "
               "an exit every quarter of the layers, each with a copy of the head, rank 8, "
               "activations in 8 bits, steps of 16 rows");
  app.add_flag("--no-cache", f.no_cache,
               "edge: compute the states below a window again in every step");
  app.add_option("--cache-form", f.cache_codec, "edge: cached states as f32, bf16 or int8")
      ->check(CLI::IsMember({"f32", "bf16", "int8"}))
      ->capture_default_str();
  AddSize(app, "--cache-limit", f.cache_limit, "edge: most disk space of the cache, as 2GiB");
}

void SetPaperMode(const GivenFn& given, EdgeFlags* f) {
  const auto set = [&](const char* name, auto& field, auto value) {
    if (!given(name)) field = value;
  };
  set("--exits", f->exits, 4);
  set("--windows", f->windows, "tiled");
  set("--first-layer", f->first_layer, 0);
  set("--trunk", f->trunk, "frozen");
  set("--exit-schedule", f->schedule, "sequential");
  set("--exit-head", f->head, "copy");
  set("--backward", f->backward, "exact");
  set("--fake-quant", f->activation_bits, 8);
}

Status ApplyEdge(const EdgeFlags& f, int64_t layers, const std::string& run_dir,
                 tune::EdgeOptions* o) {
  o->exits.exits = f.exits;
  o->exits.window = f.window;
  o->exits.first_layer = f.first_layer >= 0 ? f.first_layer : layers * 3 / 4;
  EW_ASSIGN(o->exits.layout, tune::ParseWindowLayout(f.windows));
  EW_ASSIGN(o->shares, ParseShares(f.window_steps));
  EW_ASSIGN(o->trunk.mode, tune::ParseTrunkMode(f.trunk));
  o->trunk.exact = f.trunk_forward == "exact";
  EW_ASSIGN(o->order, tune::ParseExitOrder(f.schedule));
  o->rate_per_window = f.rate_per_window;
  EW_ASSIGN(o->head, tune::ParseHeadMode(f.head));
  o->head_lora_rank = f.head_lora_rank >= 0 ? f.head_lora_rank : o->lora.r;
  if (o->head == tune::HeadMode::kCopy) o->head_lora_rank = 0;
  o->backward =
      f.backward == "integer" ? kernels::BackwardMode::kInteger : kernels::BackwardMode::kExact;
  o->windows_per_step = f.windows_per_step;
  o->activation_bits = f.activation_bits;
  o->whole_head = f.whole_head;
  if (f.paper_mode) {
    o->exits.exits = std::min(f.exits, layers);
    // The released heads are linear layers alone; the norm before them is the model's, in tuning as
    // in inference (the released code has it in inference only).
    o->train_norm = false;
  }
  EW_ASSIGN(o->trunk.codec, tune::ParseHiddenCodec(f.cache_codec));
  if (!f.cache_limit.empty()) {
    Result<int64_t> limit = ParseBytes(f.cache_limit);
    if (!limit.ok()) return InvalidArgument("--cache-limit: " + limit.status().message());
    o->trunk.cache_max_bytes = *limit;
  }
  if (!f.no_cache) o->trunk.cache_path = run_dir + "/trunk-states.cache";
  return Status::Ok();
}

}  // namespace edgewise::cli
