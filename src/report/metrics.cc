#include "report/metrics.h"

#include <fmt/format.h>

#include <cmath>
#include <span>

#include "io/json.h"

namespace edgewise::report {
namespace {

constexpr int64_t kMaxMetricsBytes = int64_t{1} << 30;

OrderedJson Head(const char* event, int64_t step) {
  OrderedJson j;
  j["schema"] = kMetricsSchema;
  j["event"] = event;
  j["step"] = step;
  return j;
}

// JSON has no infinity; nlohmann writes null for it, as meant here.
OrderedJson ToJson(const StepEvent& e) {
  OrderedJson j = Head("step", e.step);
  j["total_steps"] = e.total_steps;
  j["epoch"] = e.epoch;
  j["loss"] = e.loss;
  j["lr"] = e.lr;
  j["grad_norm"] = e.grad_norm;
  j["supervised_tokens"] = e.supervised_tokens;
  j["tokens"] = e.tokens;
  j["tokens_total"] = e.tokens_total;
  j["tokens_per_s"] = e.tokens_per_s;
  j["elapsed_s"] = e.elapsed_s;
  j["rss_bytes"] = e.rss_bytes;
  if (e.memory != HeldMemory{}) {
    j["memory"] = {{"weights", e.memory.weights},         {"trainable", e.memory.trainable},
                   {"gradients", e.memory.gradients},     {"optimizer", e.memory.optimizer},
                   {"activations", e.memory.activations}, {"scratch", e.memory.scratch}};
  }
  if (e.exit >= 0) j["exit"] = e.exit;
  if (e.skipped) j["skipped"] = true;
  if (e.skipped_total > 0) j["skipped_total"] = e.skipped_total;
  return j;
}

OrderedJson ToJson(const ValidEvent& e) {
  OrderedJson j = Head("valid", e.step);
  j["valid_loss"] = e.loss;
  j["tokens"] = e.tokens;
  j["seconds"] = e.seconds;
  j["best"] = e.best;
  if (!e.exits.empty()) j["exits"] = e.exits;
  if (e.score) {
    j["score"] = *e.score;
    j["score_name"] = e.score_name;
  }
  return j;
}

OrderedJson ToJson(const SaveEvent& e) {
  OrderedJson j = Head("save", e.step);
  j["path"] = e.path;
  j["seconds"] = e.seconds;
  if (!e.error.empty()) j["error"] = e.error;
  return j;
}

OrderedJson ToJson(const RunEvent& e) {
  static constexpr const char* kNames[] = {"start", "resume", "end"};
  OrderedJson j = Head(kNames[static_cast<int>(e.kind)], e.step);
  j["total_steps"] = e.total_steps;
  if (!e.note.empty()) j["note"] = e.note;
  return j;
}

OrderedJson ToJson(const WarningEvent& e) {
  OrderedJson j = Head("warning", e.step);
  j["message"] = e.message;
  return j;
}

// Bytes of `text` that are whole lines of steps <= keep_steps, before the first later one.
Result<int64_t> KeepUntil(const std::string& text, int64_t keep_steps) {
  size_t at = 0;
  for (int64_t line = 1; at < text.size(); ++line) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos) break;  // torn
    Result<Json> json = ParseJson(std::string_view(text).substr(at, end - at), {1 << 16, 8});
    // After a power failure the file system may leave a tail that was never written.
    if (!json.ok() && text.find('\n', end + 1) == std::string::npos) break;
    if (!json.ok()) return json.status().WithContext(fmt::format("line {}", line));
    if (!json->is_object() || !json->contains("step") || !(*json)["step"].is_number_integer()) {
      return BadInput(fmt::format("line {}: not an event with a step", line));
    }
    if ((*json)["step"].get<int64_t>() > keep_steps) break;
    at = end + 1;
  }
  return static_cast<int64_t>(at);
}

}  // namespace

std::string EventJson(const Event& event) {
  return DumpJson(std::visit([](const auto& e) { return ToJson(e); }, event));
}

Result<std::unique_ptr<MetricsFile>> MetricsFile::Open(Env& env, std::string path,
                                                       int64_t keep_steps) {
  std::unique_ptr<MetricsFile> out(new MetricsFile(env, std::move(path)));
  if (env.Exists(out->path_)) {
    int64_t keep = 0;
    if (keep_steps >= 0) {
      EW_ASSIGN(std::string text, env.ReadFile(out->path_, kMaxMetricsBytes));
      Result<int64_t> bytes = KeepUntil(text, keep_steps);
      if (!bytes.ok()) {
        return bytes.status().WithContext(out->path_ + " (move it away to start a new one)");
      }
      keep = *bytes;
    }
    EW_RETURN_IF_ERROR(env.Truncate(out->path_, keep));
    out->size_ = keep;
  }
  EW_ASSIGN(out->file_, env.NewAppendableFile(out->path_));
  return out;
}

Status MetricsFile::Append(const Event& event) {
  if (torn_) {
    EW_RETURN_IF_ERROR(env_.Truncate(path_, size_));
    torn_ = false;
  }
  const std::string line = EventJson(event) + "\n";
  Status status = file_->Append(std::as_bytes(std::span(line.data(), line.size())));
  if (status.ok()) {
    size_ += static_cast<int64_t>(line.size());
  } else {
    torn_ = !env_.Truncate(path_, size_).ok();
  }
  return status;
}

Status MetricsFile::Sync() { return file_->Sync(); }

}  // namespace edgewise::report
