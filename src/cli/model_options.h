// Options that every command with a model shares.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "cli/command.h"
#include "infer/session.h"

namespace CLI {
class Option;
}

namespace edgewise::cli {

struct ModelOptions {
  std::string model;
  std::string adapter;
  std::string dtype = "as-stored";
  bool keep_quant = false;
  int64_t max_context = 0;  // --ctx; 0: not given
  std::string cache_type = "f32";
  std::string memory;
  std::string weights_io = "cached";
  std::string vote;        // of a run with exits; "": as the run says
  double early_stop = -1;  // probability; negative: as the run says
  int fake_quant = -1;     // bits; negative: as the run was tuned
  // What --memory has to leave room for beside the weights.
  bool decodes = true;  // the keys and values of the context
  // Tokens that this takes where --ctx is not given, asked for once the model is open; empty:
  // unknown, as many as the model knows or --memory allows.
  std::function<Result<int64_t>(infer::Session&)> needed_context;
  // Tokens of the largest pass that only scores; empty: there is none.
  std::function<int64_t(const model::ModelConfig&)> scored;
  int64_t beside = 0;  // bytes that the command itself holds later
};

// The positional MODEL (or RUN: its base with its adapter), --adapter, --dtype, --vote,
// --keep-quant, --early-stop, --fake-quant.
void DeclareModel(CLI::App& app, ModelOptions& options);

// An option for a size in bytes, such as --memory. What is not one above 0 ("", 0) is wrong use,
// never "no limit".
CLI::Option* AddSize(CLI::App& app, const std::string& names, std::string& value,
                     const std::string& description);

// --cache-type.
void DeclareCache(CLI::App& app, ModelOptions& options);
// --memory and --weights-io, for the commands that keep the promise through OpenSession.
void DeclareMemory(CLI::App& app, ModelOptions& options);

// With --memory the weights are streamed where they do not fit beside everything else, which the
// options name.
// Error: no model named, everything that Session::Open finds.
Result<std::unique_ptr<infer::Session>> OpenSession(Invocation& inv, const ModelOptions& options);

}  // namespace edgewise::cli
