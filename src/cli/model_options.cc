#include "cli/model_options.h"

#include <CLI/CLI.hpp>

namespace edgewise::cli {

void DeclareModel(CLI::App& app, ModelOptions& options) {
  app.add_option("model", options.model, "Hugging Face directory, GGUF file or hub id");
  app.add_option("--adapter,--lora", options.adapter,
                 "PEFT adapter, or the run directory of 'edgewise tune'");
  app.add_option("--dtype", options.dtype,
                 "Type in which weights are held: as-stored, fp32, bf16, fp16")
      ->capture_default_str();
  app.add_flag("--keep-quant", options.keep_quant,
               "GGUF: compute on its quantised blocks as they are, in the file's size");
}

void DeclareCache(CLI::App& app, ModelOptions& options) {
  app.add_option("--cache-type", options.cache_type,
                 "How keys and values are kept: f32, f16, int8 or int4")
      ->capture_default_str();
}

Result<std::unique_ptr<infer::Session>> OpenSession(Invocation& inv, const ModelOptions& options) {
  if (options.model.empty()) return InvalidArgument("no MODEL is named");
  infer::SessionOptions session;
  Result<model::StorageDType> storage = model::ParseStorageDType(options.dtype);
  if (!storage.ok()) return InvalidArgument("--dtype: " + storage.status().message());
  session.load.storage = *storage;
  session.load.keep_quant = options.keep_quant;
  session.adapter = options.adapter;
  session.max_context = options.max_context;
  Result<model::KvForm> form = model::ParseKvForm(options.cache_type);
  if (!form.ok()) return InvalidArgument("--cache-type: " + form.status().message());
  session.kv_form = *form;
  EW_ASSIGN(ExecContext * exec, inv.Exec());
  EW_ASSIGN(auto opened, infer::Session::Open(*exec, options.model, session));
  for (const std::string& note : opened->model().notes()) inv.console().Log("note: " + note);
  return opened;
}

}  // namespace edgewise::cli
