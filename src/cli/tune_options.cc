#include "cli/tune_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>

#include "base/units.h"
#include "cli/model_options.h"
#include "cli/tune_predict.h"

namespace edgewise::cli {
namespace {

// "regex=value"; the value is what stands behind the last "=".
template <typename T>
Result<std::vector<std::pair<std::string, T>>> ParsePatterns(const std::vector<std::string>& texts,
                                                             const char* flag) {
  std::vector<std::pair<std::string, T>> patterns;
  for (const std::string& text : texts) {
    const size_t at = text.rfind('=');
    T value{};
    const char* end = text.data() + text.size();
    if (at == std::string::npos || at == 0 ||
        std::from_chars(text.data() + at + 1, end, value).ptr != end || value <= 0) {
      return InvalidArgument(
          fmt::format("{} '{}': expected PATTERN=VALUE with a value above 0", flag, text));
    }
    patterns.emplace_back(text.substr(0, at), value);
  }
  return patterns;
}

std::vector<std::string> SplitCommas(const std::string& text) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

}  // namespace

std::string DefaultRunDirectory(std::string model) {
  while (model.size() > 1 && model.back() == '/') model.pop_back();
  model.erase(0, model.rfind('/') + 1);
  model.erase(std::min(model.find('@'), model.size()));
  if (model.ends_with(".gguf")) model.resize(model.size() - 5);
  const bool nameless = model.empty() || model == "." || model == "..";
  return (nameless ? "model" : model) + "-tuned";
}

void DeclareTune(CLI::App& app, TuneFlags& f) {
  f.given = [&app](const char* name) { return app.get_option(name)->count() > 0; };
  const auto group = [&](const char* name) { app.option_defaults()->group(name); };
  app.add_option("model,-m,--model", f.model, "Hugging Face directory, GGUF file or hub id");
  group("Data and run");
  app.add_option("--data", f.data,
                 "Training data: .jsonl, .json, .txt, or a directory with train/valid files");
  app.add_option("-o,--output,--output-dir", f.out,
                 "Run directory (default: the model's name with -tuned)");
  app.add_option("--valid-data", f.valid_data, "Validation data (default: the directory's)");
  app.add_option("--val-fraction,--val-size", f.val_fraction,
                 "Share of the training data held out when there is no validation data; 0: none")
      ->check(CLI::Range(0.0, 0.9))
      ->capture_default_str();
  app.add_flag("--overwrite", f.overwrite, "Replace an earlier run in the run directory");
  app.add_flag("--dry-run", f.dry_run, "Print plan and first samples with their masks, then stop");
  app.add_option("--report-samples", f.report_samples,
                 "Rows that base and result answer for report.html (none with --memory)")
      ->check(CLI::Range(0, 50))
      ->capture_default_str();
  app.add_flag("--no-progress", f.no_progress, "Plain progress lines");

  group("How rows are read");
  DeclareData(app, f.data_flags);
  app.add_flag("--pack,--packing", f.pack,
               "Put short examples into one row; they never see each other");

  group("What is trained");
  app.add_option(
         "--method", f.method,
         "edge (adaptive layer tuning: windows of layers, each below an exit), lora (all layers), "
         "last-n (LoRA on the last layers) or full (default: edge; lora with --init-adapter)")
      ->check(CLI::IsMember({"edge", "lora", "last-n", "full"}));
  app.add_option("--lora-rank,--rank,--lora-r", f.rank, "LoRA rank (default: 16; edge: 32)")
      ->check(CLI::Range(1, 4096));
  app.add_option("--lora-alpha,--alpha", f.alpha, "LoRA scale is alpha / rank (default: 2 rank)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--lora-dropout", f.dropout, "Dropout on the adapter's input")
      ->check(CLI::Range(0.0, 0.99))
      ->capture_default_str();
  app.add_option("--lora-targets,--target-modules", f.targets,
                 "all, or modules such as q_proj,v_proj")
      ->capture_default_str();
  app.add_flag("--rslora,--use-rslora", f.rslora, "Scale alpha / sqrt(rank)");
  app.add_option("--rank-pattern", f.rank_pattern, "REGEX=RANK for matching modules")
      ->allow_extra_args(false);
  app.add_option("--alpha-pattern", f.alpha_pattern, "REGEX=ALPHA for matching modules")
      ->allow_extra_args(false);
  app.add_option("--last-layers,--num-layers", f.last_layers, "last-n: how many layers")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--init-adapter,--resume-adapter-file", f.init_adapter,
                 "Start from this PEFT adapter");
  group("Adaptive layer tuning (--method edge)");
  DeclareEdge(app, f.edge);

  group("Memory and speed");
  AddSize(app, "--memory", f.memory, "Most resident memory, for example 2GiB");
  app.add_flag(
      "--recompute{layer},--gradient-checkpointing{layer},--grad-checkpoint{layer}", f.recompute,
      "Keep layer inputs only: less memory, about a third slower; --recompute=mlp: all but the "
      "MLPs' activations (with --memory also without this, where a run does not fit otherwise)");
  app.add_option("--dtype", f.dtype, "Type in which the base is held: as-stored, fp32, bf16, fp16")
      ->capture_default_str();
  app.add_flag("--keep-quant", f.keep_quant,
               "GGUF: tune on its quantised blocks as they are, in the file's size");
  app.add_option("--head-skip", f.head_skip,
                 "Leave blocks of the vocabulary below this probability out of the gradient "
                 "(default: 0, none; edge: 2^-12)")
      ->check(CLI::Range(0.0, 0.99));
  app.add_option("--weights-io", f.weights_io,
                 "How weights are read that do not fit --memory: cached, direct (past the page "
                 "cache)")
      ->check(CLI::IsMember({"cached", "direct"}))
      ->capture_default_str();
  app.add_option(
         "--order", f.order,
         "How micro-batches of a step pass through weights that do not fit: row (one after "
         "the other), column (each layer for all of them), a number (in groups of so many), "
         "searched (in groups, whichever is fastest). The result is the same bits")
      ->check([](const std::string& text) { return ParseOrder(text).status().message(); })
      ->capture_default_str();

  app.add_option("--spill", f.spill,
                 "With --memory: activations on disk (in the run directory, written every step) "
                 "never, auto (where nothing fits otherwise, or to save more than a tenth of the "
                 "time) or always (wherever it is faster). The result is the same bits")
      ->check(CLI::IsMember({"never", "auto", "always"}))
      ->capture_default_str();

  app.add_option(
         "--split", f.split,
         "Cut micro-batches between documents into ones of so many tokens (N), never, auto (where "
         "nothing fits the memory otherwise) or fast (also to save more than a tenth of the time, "
         "as "
         "measured). Sums are taken in another order")
      ->capture_default_str();

  group("Learning");
  app.add_option("--learning-rate,--lr", f.lr, "Peak learning rate")->capture_default_str();
  app.add_option("--min-lr", f.min_lr, "Where the schedule ends")->capture_default_str();
  app.add_option("--lr-schedule,--lr-scheduler-type", f.lr_schedule, "constant, linear or cosine")
      ->check(CLI::IsMember({"constant", "linear", "cosine"}))
      ->capture_default_str();
  app.add_option("--warmup-ratio", f.warmup_ratio, "Share of the steps with a rising rate")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--warmup-steps", f.warmup_steps, "Steps with a rising rate");
  app.add_option("--batch-size,--per-device-train-batch-size", f.batch_size,
                 "Rows of one micro-batch")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--grad-accum,--gradient-accumulation-steps", f.grad_accum,
                 "Micro-batches of one step")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--epochs,--num-train-epochs", f.epochs, "Passes over the data")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--max-steps,--iters", f.max_steps, "Steps, instead of epochs")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--lora-plus,--loraplus-lr-ratio", f.lora_plus,
                 fmt::format("Learning rate of LoRA's B factors as a multiple of the others' "
                             "(default: 1; edge: {})",
                             kEdgeLoraPlus))
      ->check(CLI::PositiveNumber);
  app.add_option("--weight-decay", f.weight_decay, "AdamW weight decay")->capture_default_str();
  app.add_option("--max-grad-norm", f.max_grad_norm, "Clip gradients to this norm; 0: never")
      ->capture_default_str();
  app.add_option("--adam-beta1", f.beta1, "AdamW: decay of the mean gradient")
      ->capture_default_str();
  app.add_option("--adam-beta2", f.beta2, "AdamW: decay of the mean square")->capture_default_str();
  app.add_option("--adam-epsilon", f.adam_eps, "AdamW: added to the root of the mean square")
      ->capture_default_str();
  app.add_option("--seed", f.seed, "Of data order, initial values and dropout")
      ->capture_default_str();

  group("Validation and checkpoints");
  app.add_option("--eval-every,--eval-steps,--steps-per-eval", f.eval_every,
                 "Validate every so many steps (default: at the end)")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--no-eval-at-start", f.no_eval_at_start, "No validation before the first step");
  app.add_option("--save-every,--save-steps", f.save_every,
                 "Write a checkpoint every so many steps (default: at the end)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--save-total-limit,--keep-checkpoints", f.save_total_limit,
                 "Checkpoints to keep, the best one among them")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--keep", f.keep, "What the run holds in the end: best or last")
      ->check(CLI::IsMember({"best", "last"}))
      ->capture_default_str();
  app.add_flag("--resume{auto},--auto-resume{auto}", f.resume,
               "Go on where the run stopped; --resume=PATH: from this checkpoint");
}

Result<int64_t> ParseSplit(const std::string& text) {
  if (text == "auto") return kSplitAuto;
  if (text == "fast") return kSplitFast;
  if (text == "never") return int64_t{0};
  int64_t tokens = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), tokens);
  if (error == std::errc() && end == text.data() + text.size() && tokens > 0) return tokens;
  return InvalidArgument("--split " + text +
                         ": neither auto nor fast nor never nor a number of tokens");
}

std::string ChooseMethod(TuneFlags& f) {
  if (!f.method.empty()) return "";
  f.method = f.init_adapter.empty() ? "edge" : "lora";
  return f.method == "edge" ? "" : "--init-adapter: method lora, as method edge starts afresh";
}

Status ApplyPaperMode(TuneFlags& f) {
  if (!f.edge.paper_mode) return Status::Ok();
  if (f.method != "edge") return InvalidArgument("--paper-mode is for method edge");
  SetPaperMode(f.given, &f.edge);
  const auto set = [&](const char* name, auto& field, auto value) {
    if (!f.given(name)) field = value;
  };
  set("--lora-rank", f.rank, 8);
  set("--lora-alpha", f.alpha, 16);
  set("--lora-dropout", f.dropout, 0.1);
  set("--head-skip", f.head_skip, 0);
  set("--batch-size", f.batch_size, 1);
  set("--grad-accum", f.grad_accum, 16);
  set("--learning-rate", f.lr, 4e-4);
  set("--lr-schedule", f.lr_schedule, "constant");
  set("--warmup-steps", f.warmup_steps, 0);  // (Its ratio of 0.03 has no effect there.)
  set("--adam-beta2", f.beta2, 0.999);
  set("--lora-plus", f.lora_plus, 1);
  set("--weight-decay", f.weight_decay, 0);
  set("--max-grad-norm", f.max_grad_norm, 0.3);
  return Status::Ok();
}

Result<tune::EdgeOptions> EdgeMethodOptions(const TuneFlags& f, int64_t layers) {
  EW_ASSIGN(const tune::ModelMethodOptions lora, MethodOptions(f));
  if (!f.init_adapter.empty()) {
    return InvalidArgument("--init-adapter is for the methods lora and last-n");
  }
  tune::EdgeOptions o;
  o.lora = lora.lora;
  EW_RETURN_IF_ERROR(ApplyEdge(f.edge, layers, f.out, &o));
  o.seed = lora.init_seed;
  o.recompute = lora.recompute;
  o.head_skip_below = static_cast<float>(f.head_skip >= 0 ? f.head_skip : kEdgeHeadSkip);
  o.base_name = lora.base_name;
  return o;
}

std::string TuneOptionsText(const TuneFlags& f) {
  const EdgeFlags& e = f.edge;
  return fmt::format(
      "{} {} {} {} {} {} {} | {} {} {} {} {} {} {} {} {} {} {} {} {} | {} {} {} {} {} {} {} {} | "
      "{} {} {} {} {} {} {} {} | {} {} {} {} {} {}",
      f.rank, f.alpha, f.dropout, f.targets, f.rslora, fmt::join(f.rank_pattern, ","),
      fmt::join(f.alpha_pattern, ","), e.exits, e.window, e.first_layer, e.windows, e.window_steps,
      e.trunk, e.schedule, e.rate_per_window, e.head, e.backward, e.head_lora_rank, e.paper_mode,
      e.cache_codec, f.lr, f.min_lr, f.lr_schedule, f.warmup_ratio, f.warmup_steps, f.batch_size,
      f.grad_accum, f.weight_decay, f.max_grad_norm, f.beta1, f.beta2, f.adam_eps, f.lora_plus,
      f.pack, f.seed, f.head_skip, e.windows_per_step, e.activation_bits, e.distill,
      e.distill_weight, e.whole_head, e.trunk_forward);
}

// (A configuration file may say true.)
Result<plan::Recompute> ParseRecompute(const std::string& form) {
  if (form.empty() || form == "false" || form == "none") return plan::Recompute::kNone;
  if (form == "layer" || form == "true") return plan::Recompute::kLayer;
  if (form == "mlp") return plan::Recompute::kMlp;
  return InvalidArgument(fmt::format("--recompute={}: it is layer or mlp", form));
}

Result<tune::ModelMethodOptions> MethodOptions(const TuneFlags& f) {
  tune::ModelMethodOptions o;
  // The adapter of `edge` is that of `lora`; what is trained when is decided elsewhere.
  EW_ASSIGN(o.kind, tune::ParseMethod(f.method == "edge" ? "lora" : f.method));
  o.head_skip_below = static_cast<float>(std::max(f.head_skip, 0.0));
  o.lora.r = f.rank > 0 ? f.rank : f.method == "edge" ? kEdgeRank : 16;
  o.lora.lora_alpha = f.alpha > 0 ? f.alpha : 2.0 * static_cast<double>(o.lora.r);
  o.lora.lora_dropout = f.dropout;
  o.lora.use_rslora = f.rslora;
  if (f.targets == "all" || f.targets == "all-linear") {
    o.lora.targets = formats::LoraConfig::Targets::kAllLinear;
  } else {
    o.lora.targets = formats::LoraConfig::Targets::kList;
    o.lora.target_modules = SplitCommas(f.targets);
    if (o.lora.target_modules.empty()) return InvalidArgument("--lora-targets names no module");
  }
  EW_ASSIGN(o.lora.rank_pattern, ParsePatterns<int64_t>(f.rank_pattern, "--rank-pattern"));
  EW_ASSIGN(o.lora.alpha_pattern, ParsePatterns<double>(f.alpha_pattern, "--alpha-pattern"));
  o.last_layers = f.last_layers;
  o.init_seed = f.seed;
  o.init_adapter = f.init_adapter;
  EW_ASSIGN(o.recompute, ParseRecompute(f.recompute));
  o.base_name = f.model;
  return o;
}

Result<tune::TrainOptions> TrainerOptions(const TuneFlags& f) {
  tune::TrainOptions o;
  o.run_dir = f.out;
  o.epochs = f.epochs;
  o.max_steps = f.max_steps;
  o.grad_accum = f.grad_accum;
  EW_ASSIGN(o.lr.kind, tune::ParseLrKind(f.lr_schedule));
  o.lr.lr = f.lr;
  o.lr.min_lr = f.min_lr;
  o.lr.warmup_steps = f.warmup_steps;
  o.lr.warmup_ratio = f.warmup_ratio;
  o.adamw.beta1 = f.beta1;
  o.adamw.beta2 = f.beta2;
  o.adamw.eps = f.adam_eps;
  o.adamw.weight_decay = f.weight_decay;
  o.adamw.max_grad_norm = f.max_grad_norm;
  o.adamw.lora_b_rate = f.lora_plus > 0 ? f.lora_plus : f.method == "edge" ? kEdgeLoraPlus : 1;
  EW_RETURN_IF_ERROR(tune::ValidateAdamW(o.adamw));
  o.seed = f.seed;
  o.eval_every = f.eval_every;
  o.eval_at_start = !f.no_eval_at_start;
  o.save_every = f.save_every;
  o.save_total_limit = f.save_total_limit;
  o.keep = f.keep == "best" ? tune::KeepResult::kBest : tune::KeepResult::kLast;
  o.overwrite = f.overwrite;
  if (!f.resume.empty()) {
    o.resume = f.resume == "auto" ? tune::ResumeMode::kAuto : tune::ResumeMode::kRequired;
    if (f.resume != "auto") o.resume_from = f.resume;
  }
  return o;
}

}  // namespace edgewise::cli
