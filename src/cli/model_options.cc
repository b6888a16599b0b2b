#include "cli/model_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/session_memory.h"
#include "exec/memory.h"
#include "formats/hf_dir.h"
#include "io/env.h"
#include "io/json.h"

namespace edgewise::cli {

void DeclareModel(CLI::App& app, ModelOptions& options) {
  app.add_option(
      "model,-m,--model", options.model,
      "Hugging Face directory, GGUF file, hub id, or a run directory of 'edgewise tune'");
  app.add_option("--adapter,--lora", options.adapter,
                 "PEFT adapter, or the run directory of 'edgewise tune'");
  app.add_option("--dtype", options.dtype,
                 "Type in which weights are held: as-stored, fp32, bf16, fp16")
      ->capture_default_str();
  app.add_flag("--keep-quant", options.keep_quant,
               "GGUF: compute on its quantised blocks as they are, in the file's size");
  app.add_option("--vote", options.vote,
                 "How a run's exits vote: max-prob, mean, weighted, confident, single:K (default: "
                 "as the run found best)");
  app.add_option("--early-stop", options.early_stop,
                 "A token ends at the first exit that is so sure of it (probability); 0: never")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--fake-quant", options.fake_quant,
                 "Round activations to so many bits; 0: not (default: as the run was tuned)")
      ->check(CLI::IsMember({0, 2, 3, 4, 5, 6, 8}));
}

CLI::Option* AddSize(CLI::App& app, const std::string& names, std::string& value,
                     const std::string& description) {
  return app.add_option(names, value, description)->check([](const std::string& text) {
    const Result<int64_t> bytes = ParseBytes(text);
    if (!bytes.ok()) return bytes.status().message();
    return *bytes > 0 ? std::string() : fmt::format("'{}' is not a size above 0", text);
  });
}

void DeclareMemory(CLI::App& app, ModelOptions& options) {
  AddSize(app, "--memory", options.memory, "Most resident memory, for example 2GiB");
  app.add_option("--weights-io", options.weights_io,
                 "How weights are read that do not fit --memory: cached, direct (past the page "
                 "cache)")
      ->check(CLI::IsMember({"cached", "direct"}))
      ->capture_default_str();
}

void DeclareCache(CLI::App& app, ModelOptions& options) {
  app.add_option("--cache-type", options.cache_type,
                 "How keys and values are kept: f32, f16, int8 or int4")
      ->capture_default_str();
}

namespace {

constexpr int64_t kEverything = int64_t{1} << 60;

// The base that a run directory names; "" when `path` is no such directory.
Result<std::string> BaseOfRun(const std::string& path) {
  const std::string file = JoinPath(path, "edgewise.json");
  if (!PosixEnv().Exists(file) || PosixEnv().Exists(JoinPath(path, "config.json"))) {
    return std::string();
  }
  EW_ASSIGN(const Json run, ReadJsonFile(file));
  if (!run.is_object() || !run.contains("base") || !run["base"].is_object() ||
      !run["base"].contains("path") || !run["base"]["path"].is_string()) {
    return std::string();
  }
  return run["base"]["path"].get<std::string>();
}

}  // namespace

Result<std::unique_ptr<infer::Session>> OpenSession(Invocation& inv, const ModelOptions& options) {
  if (options.model.empty()) return InvalidArgument("no MODEL is named");
  infer::SessionOptions session;
  Result<model::StorageDType> storage = model::ParseStorageDType(options.dtype);
  if (!storage.ok()) return InvalidArgument("--dtype: " + storage.status().message());
  session.load.storage = *storage;
  session.load.keep_quant = options.keep_quant;
  session.adapter = options.adapter;
  session.vote = options.vote;
  session.stop_above = options.early_stop;
  session.activation_bits = options.fake_quant;
  std::string name = options.model;
  EW_ASSIGN(const std::string base, BaseOfRun(name));
  if (!base.empty() && options.adapter.empty()) {
    session.adapter = name;
    name = base;
  }
  session.max_context = options.max_context;
  Result<model::KvForm> form = model::ParseKvForm(options.cache_type);
  if (!form.ok()) return InvalidArgument("--cache-type: " + form.status().message());
  session.kv_form = *form;
  EW_ASSIGN(session.load.tuning, inv.Tuning());
  int64_t limit = 0;
  const int64_t before = ReadProcessMemory().rss_bytes;
  if (!options.memory.empty()) {
    Result<int64_t> asked = ParseBytes(options.memory);
    if (!asked.ok()) return InvalidArgument("--memory: " + asked.status().message());
    limit = *asked;
    EW_ASSIGN(const formats::ModelLocation location, formats::ResolveModel(name));
    if (location.kind == formats::ModelLocation::Kind::kHfDirectory) {
      session.load.stream.budget_bytes = kEverything;
      session.load.stream.direct_io = options.weights_io == "direct";
    }
  }
  EW_ASSIGN(ExecContext * exec, inv.Exec());
  EW_ASSIGN(auto opened, infer::Session::Open(*exec, name, session));
  for (const std::string& note : opened->model().notes()) inv.console().Log("note: " + note);
  EW_RETURN_IF_ERROR(SetContext(inv, *opened, limit, options, before));
  if (limit > 0) EW_RETURN_IF_ERROR(FitSession(inv, *opened, limit, options, before));
  return opened;
}

}  // namespace edgewise::cli
