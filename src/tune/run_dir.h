// RUN/, the directory of a run:
//
//   edgewise.json        what this is: base, method, options, seeds, versions, hashes, results
//   adapter_config.json, adapter_model.safetensors (LoRA) or model.safetensors, config.json, ...
//   README.md            model card
//   metrics.jsonl        report/metrics.h
//   checkpoints/         tune/run_state.h
//   .lock                RunLock
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "io/env.h"
#include "tune/method.h"
#include "tune/run_state.h"

namespace edgewise::tune {

inline constexpr const char* kRunFile = "edgewise.json";
inline constexpr const char* kMetricsName = "metrics.jsonl";
inline constexpr const char* kCheckpointsName = "checkpoints";

// Held by the process that writes to a run's directory; given back when it ends, however it ends.
class RunLock {
 public:
  // Creates the directory when absent. Error: another process holds it.
  static Result<std::unique_ptr<RunLock>> Acquire(Env& env, const std::string& run_dir);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  explicit RunLock(int fd) : fd_(fd) {}
  int fd_;
};

// What edgewise.json and the model card say.
struct RunDescription {
  std::string status;  // "running", "finished", "interrupted", "failed"
  std::string version;
  std::string base_path;
  std::string method;
  RunIdentity identity;
  int64_t total_steps = 0;
  uint64_t seed = 0;
  RunState state;
  std::string exported;  // "best" or "last"; "" before the end
  int64_t exported_step = -1;
  double step_seconds = 0;  // measured: TrainResult::step_seconds; 0: no step was made
  std::string extra_json;   // an object of further keys, or ""
};

Status WriteRunFile(Env& env, const std::string& run_dir, const RunDescription& description);
Status WriteModelCard(Env& env, const std::string& run_dir, const RunDescription& description);

// Writes the files into the directory, each atomically, those that describe (.json) last.
Status WriteResultFiles(Env& env, const std::string& run_dir, const std::vector<ResultFile>& files);

}  // namespace edgewise::tune
