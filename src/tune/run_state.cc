#include "tune/run_state.h"

#include <fmt/format.h>

#include <cmath>
#include <set>

#include "formats/safetensors.h"
#include "formats/safetensors_writer.h"
#include "io/json.h"

namespace edgewise::tune {
namespace {

constexpr int kStateSchema = 1;
constexpr const char* kStateFile = "state.json";
constexpr const char* kOptimizerFile = "optimizer.safetensors";
constexpr int64_t kMaxStateBytes = int64_t{64} << 20;

OrderedJson Optional(const std::optional<double>& v) {
  return v ? OrderedJson(*v) : OrderedJson(nullptr);
}

Result<std::string> StateJson(const RunIdentity& id, const RunState& s) {
  EW_ASSIGN(Json options, ParseJson(id.options_json));
  OrderedJson j;
  j["schema"] = kStateSchema;
  j["step"] = s.step;
  j["tokens"] = s.tokens;
  j["supervised_tokens"] = s.supervised_tokens;
  j["loss_sum"] = s.loss_sum;
  j["loss_tokens"] = s.loss_tokens;
  j["last_loss"] = s.last_loss;
  j["skipped_total"] = s.skipped_total;
  j["skipped_in_row"] = s.skipped_in_row;
  j["best_loss"] = Optional(s.best_loss);
  j["best_step"] = s.best_step;
  j["valid_loss"] = Optional(s.valid_loss);
  j["valid_step"] = s.valid_step;
  j["start_valid_loss"] = Optional(s.start_valid_loss);
  j["seconds"] = s.seconds;
  j["peak_rss_bytes"] = s.peak_rss_bytes;
  j["method_state"] = s.method_state;
  j["model"] = id.model;
  j["data"] = id.data;
  j["valid_data"] = id.valid_data;
  j["options"] = options;
  return DumpJson(j, 2) + "\n";
}

// Typed reads that remember the first key that is not as it should be.
class Reader {
 public:
  explicit Reader(const Json& json) : json_(json) {}

  void Get(const char* key, int64_t* out) {
    const Json* v = Find(key);
    if (v != nullptr && v->is_number_integer()) {
      *out = v->get<int64_t>();
    } else {
      Bad(key);
    }
  }
  void Get(const char* key, double* out) {
    const Json* v = Find(key);
    if (v != nullptr && v->is_number()) {
      *out = v->get<double>();
    } else {
      Bad(key);
    }
  }
  void Get(const char* key, std::string* out) {
    const Json* v = Find(key);
    if (v != nullptr && v->is_string()) {
      *out = v->get<std::string>();
    } else {
      Bad(key);
    }
  }
  void Get(const char* key, std::optional<double>* out) {
    const Json* v = Find(key);
    if (v != nullptr && v->is_number()) {
      *out = v->get<double>();
    } else if (v == nullptr || !v->is_null()) {
      Bad(key);
    }
  }
  Status status() const {
    if (bad_.empty()) return Status::Ok();
    return BadInput(fmt::format("\"{}\" is missing or of the wrong type", bad_));
  }

 private:
  const Json* Find(const char* key) const {
    const auto it = json_.find(key);
    return it == json_.end() ? nullptr : &*it;
  }
  void Bad(const char* key) {
    if (bad_.empty()) bad_ = key;
  }
  const Json& json_;
  std::string bad_;
};

Status ParseState(const std::string& text, RunState* s, RunIdentity* id) {
  EW_ASSIGN(Json json, ParseJson(text, {.max_bytes = kMaxStateBytes, .max_depth = 64}));
  if (!json.is_object()) return BadInput("not a JSON object");
  Reader r(json);
  int64_t schema = 0;
  r.Get("schema", &schema);
  if (schema != kStateSchema) {
    return Unsupported(fmt::format("schema {}, this program reads {}", schema, kStateSchema));
  }
  r.Get("step", &s->step);
  r.Get("tokens", &s->tokens);
  r.Get("supervised_tokens", &s->supervised_tokens);
  r.Get("loss_sum", &s->loss_sum);
  r.Get("loss_tokens", &s->loss_tokens);
  r.Get("last_loss", &s->last_loss);
  r.Get("skipped_total", &s->skipped_total);
  r.Get("skipped_in_row", &s->skipped_in_row);
  r.Get("best_loss", &s->best_loss);
  r.Get("best_step", &s->best_step);
  r.Get("valid_loss", &s->valid_loss);
  r.Get("valid_step", &s->valid_step);
  r.Get("start_valid_loss", &s->start_valid_loss);
  r.Get("seconds", &s->seconds);
  r.Get("peak_rss_bytes", &s->peak_rss_bytes);
  r.Get("method_state", &s->method_state);
  r.Get("model", &id->model);
  r.Get("data", &id->data);
  r.Get("valid_data", &id->valid_data);
  EW_RETURN_IF_ERROR(r.status());
  const auto options = json.find("options");
  if (options == json.end() || !options->is_object()) return BadInput("\"options\" is missing");
  id->options_json = DumpJson(*options);
  if (s->step < 0 || s->tokens < 0 || s->supervised_tokens < 0) return BadInput("negative counts");
  return Status::Ok();
}

void CompareJson(const std::string& path, const Json& saved, const Json& now, std::string* out) {
  if (saved == now) return;
  if (saved.is_object() && now.is_object()) {
    std::set<std::string> keys;
    for (const auto& [key, value] : saved.items()) keys.insert(key);
    for (const auto& [key, value] : now.items()) keys.insert(key);
    for (const std::string& key : keys) {
      const std::string name = path.empty() ? key : path + "." + key;
      CompareJson(name, saved.value(key, Json()), now.value(key, Json()), out);
    }
    return;
  }
  *out += fmt::format("{}{}: {} there, {} now", out->empty() ? "" : "; ", path, DumpJson(saved),
                      DumpJson(now));
}

void CompareText(const char* what, const std::string& saved, const std::string& now,
                 std::string* out) {
  if (saved == now) return;
  *out += fmt::format("{}{}: {} there, {} now", out->empty() ? "" : "; ", what,
                      saved.empty() ? "none" : saved, now.empty() ? "none" : now);
}

Status AsSaveFailure(Status status) {
  if (status.ok() || status.code() == StatusCode::kInternal) return status;
  return Status(StatusCode::kSaveFailed, status.message());
}

Result<formats::CheckpointInfo> Save(Env& env, const std::string& dir, const RunIdentity& identity,
                                     const RunState& state, Method& method,
                                     const AdamW& optimizer) {
  EW_ASSIGN(std::vector<ResultFile> files, method.Files());
  formats::SafetensorsWriter moments;
  EW_RETURN_IF_ERROR(optimizer.Save(moments));
  RunState with_method = state;
  with_method.method_state = method.SaveState();
  EW_ASSIGN(std::string state_json, StateJson(identity, with_method));
  int64_t expected = moments.FileBytes() + static_cast<int64_t>(state_json.size());
  for (const ResultFile& file : files) expected += file.bytes;
  EW_ASSIGN(auto writer, formats::CheckpointWriter::Begin(env, dir, state.step, expected));
  for (const ResultFile& file : files) EW_RETURN_IF_ERROR(writer->AddFile(file.name, file.write));
  EW_RETURN_IF_ERROR(
      writer->AddFile(kOptimizerFile, [&](WritableFile& file) { return moments.WriteTo(file); }));
  EW_RETURN_IF_ERROR(writer->AddFile(kStateFile, state_json));
  return writer->Commit();
}

}  // namespace

Status CheckSameRun(const RunIdentity& saved, const RunIdentity& now) {
  std::string differences;
  CompareText("model", saved.model, now.model, &differences);
  CompareText("training data", saved.data, now.data, &differences);
  CompareText("validation data", saved.valid_data, now.valid_data, &differences);
  EW_ASSIGN(Json a, ParseJson(saved.options_json));
  EW_ASSIGN(Json b, ParseJson(now.options_json));
  CompareJson("", a, b, &differences);
  if (differences.empty()) return Status::Ok();
  return InvalidArgument("this is another run: " + differences);
}

Result<formats::CheckpointInfo> SaveRunState(Env& env, const std::string& dir,
                                             const RunIdentity& identity, const RunState& state,
                                             Method& method, const AdamW& optimizer) {
  Result<formats::CheckpointInfo> info = Save(env, dir, identity, state, method, optimizer);
  if (!info.ok()) return AsSaveFailure(info.status());
  return info;
}

Result<SavedRun> ReadSavedRun(Env& env, const std::string& path) {
  EW_ASSIGN(formats::CheckpointInfo info, formats::ReadCheckpoint(env, path));
  SavedRun out;
  out.path = info.path;
  const std::string state = JoinPath(info.path, kStateFile);
  EW_ASSIGN(std::string text, env.ReadFile(state, kMaxStateBytes));
  if (Status s = ParseState(text, &out.state, &out.identity); !s.ok()) return s.WithContext(state);
  return out;
}

Result<std::optional<SavedRun>> FindSavedRun(Env& env, const std::string& dir,
                                             std::vector<formats::SkippedCheckpoint>* skipped) {
  EW_ASSIGN(formats::CheckpointScan scan, formats::FindNewestCheckpoint(env, dir));
  if (skipped != nullptr) *skipped = scan.skipped;
  if (scan.valid.empty()) return std::optional<SavedRun>();
  EW_ASSIGN(SavedRun run, ReadSavedRun(env, scan.valid.front().path));
  run.skipped = std::move(scan.skipped);
  return std::optional<SavedRun>(std::move(run));
}

Status RestoreSavedRun(const SavedRun& saved, Method& method, AdamW& optimizer) {
  const std::string path = JoinPath(saved.path, kOptimizerFile);
  EW_ASSIGN(auto moments, formats::SafetensorsFile::Open(path));
  if (Status s = optimizer.Load(*moments); !s.ok()) return s.WithContext(path);
  if (Status s = method.Restore(saved.path); !s.ok()) return s.WithContext(saved.path);
  return method.LoadState(saved.state.method_state);
}

}  // namespace edgewise::tune
