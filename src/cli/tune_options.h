// The options of tune: names follow MLX-LM, LLaMA-Factory, axolotl and transformers.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/data_options.h"
#include "cli/edge_options.h"
#include "tune/edge_method.h"
#include "tune/model_method.h"
#include "tune/trainer.h"

namespace edgewise::cli {

struct TuneFlags {
  std::string model, data, valid_data, out;
  DataFlags data_flags;
  double val_fraction = 0.05;

  std::string method;  // empty: ChooseMethod decides
  int64_t rank = 0;    // 0: 16, or kEdgeRank
  double alpha = 0;    // 0: 2 * rank
  double dropout = 0;
  std::string targets = "all";
  bool rslora = false;
  std::vector<std::string> rank_pattern, alpha_pattern;  // "regex=value"
  int64_t last_layers = 16;
  std::string init_adapter;
  EdgeFlags edge;
  GivenFn given;          // set by DeclareTune
  double head_skip = -1;  // negative: 0, or kEdgeHeadSkip
  std::string dtype = "as-stored";
  bool keep_quant = false;
  std::string recompute;  // "", "mlp" or "layer"
  std::string memory;
  std::string weights_io = "cached";
  std::string order = "searched";
  std::string spill = "auto";
  std::string split = "auto";  // or another that ParseSplit knows

  double lr = 2e-4, min_lr = 0;
  std::string lr_schedule = "cosine";
  double warmup_ratio = 0.03;
  int64_t warmup_steps = -1;
  int64_t batch_size = 1, grad_accum = 8;
  double epochs = 1;
  int64_t max_steps = 0;
  double lora_plus = 0;  // 0: 1, or kEdgeLoraPlus
  double weight_decay = 0, max_grad_norm = 1, beta1 = 0.9, beta2 = 0.999, adam_eps = 1e-8;
  bool pack = false;
  uint64_t seed = 42;

  int64_t eval_every = 0, save_every = 0, save_total_limit = 2;
  bool no_eval_at_start = false;
  std::string keep = "best";
  std::string resume;  // "auto" or a checkpoint directory
  bool overwrite = false;
  bool dry_run = false, no_progress = false;
  int64_t report_samples = 4;
};

// Where a run goes when nothing is said: "Name-tuned" in the current directory for
// "org/Name@revision", "dir/Name/" and "dir/Name.gguf".
std::string DefaultRunDirectory(std::string model);

// --split: the tokens to which micro-batches are cut; 0: never; or one of these. Error: neither a
// word that is known nor a number above 0.
inline constexpr int64_t kSplitAuto = -1;  // where nothing fits otherwise
inline constexpr int64_t kSplitFast = -2;  // also where it is clearly faster, as measured
Result<int64_t> ParseSplit(const std::string& text);

void DeclareTune(CLI::App& app, TuneFlags& flags);

// Sets the method where none is named: edge, or lora for a run that edge does not do; then says
// why, else "".
std::string ChooseMethod(TuneFlags& flags);
// --paper-mode: the choices of the paper's released code for every option that was not given.
// Error: another method than edge.
Status ApplyPaperMode(TuneFlags& flags);

// Error: names the flag.
Result<tune::ModelMethodOptions> MethodOptions(const TuneFlags& flags);
Result<tune::EdgeOptions> EdgeMethodOptions(const TuneFlags& flags, int64_t layers);
// Every option that the tuned parameters depend on, as text to be compared.
std::string TuneOptionsText(const TuneFlags& flags);
Result<tune::TrainOptions> TrainerOptions(const TuneFlags& flags);

}  // namespace edgewise::cli
