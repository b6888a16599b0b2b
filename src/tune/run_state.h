// The state of a run on disk: everything that the steps to come depend on, so that a run that was
// stopped anywhere ends in the same bits as one that was not.
//
// A checkpoint (formats/checkpoint.h) holds the method's result files (for LoRA a complete PEFT
// adapter), optimizer.safetensors (moments) and state.json (RunState and RunIdentity). Random
// numbers need no state: they are functions of (seed, step).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/checkpoint.h"
#include "io/env.h"
#include "tune/method.h"
#include "tune/optimizer.h"

namespace edgewise::tune {

// What must be the same for a run to go on.
struct RunIdentity {
  std::string model;         // fingerprint of the base
  std::string data;          // of the training batches and their order
  std::string valid_data;    // "" without validation
  std::string options_json;  // an object: every option that decides the arithmetic
};

// Names everything that differs, with both values; ok when nothing does.
Status CheckSameRun(const RunIdentity& saved, const RunIdentity& now);

struct RunState {
  int64_t step = 0;    // steps done
  int64_t tokens = 0;  // all, seen in those
  int64_t supervised_tokens = 0;
  double loss_sum = 0;  // over the supervised tokens of the applied steps
  int64_t loss_tokens = 0;
  double last_loss = 0;  // of the last applied step
  int64_t skipped_total = 0;
  int64_t skipped_in_row = 0;
  std::optional<double> best_loss;  // lowest validation loss that has a checkpoint
  int64_t best_step = -1;
  std::optional<double> valid_loss;  // the latest
  int64_t valid_step = -1;
  std::optional<double> start_valid_loss;  // before the first step
  double seconds = 0;                      // of work, over all processes so far
  int64_t peak_rss_bytes = 0;
  std::string method_state;
};

// Writes DIR/checkpoint-<step>. Every error but a bug has code kSaveFailed.
Result<formats::CheckpointInfo> SaveRunState(Env& env, const std::string& dir,
                                             const RunIdentity& identity, const RunState& state,
                                             Method& method, const AdamW& optimizer);

struct SavedRun {
  std::string path;
  RunState state;
  RunIdentity identity;
  std::vector<formats::SkippedCheckpoint> skipped;  // newer ones that are damaged
};

// The newest valid checkpoint of DIR, without its tensors; nothing when there is none.
Result<std::optional<SavedRun>> FindSavedRun(Env& env, const std::string& dir,
                                             std::vector<formats::SkippedCheckpoint>* skipped);
// A particular checkpoint directory.
Result<SavedRun> ReadSavedRun(Env& env, const std::string& path);
// Its tensors into the method and the optimiser.
Status RestoreSavedRun(const SavedRun& saved, Method& method, AdamW& optimizer);

}  // namespace edgewise::tune
