// Options that every command with a model shares.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "cli/command.h"
#include "infer/session.h"

namespace edgewise::cli {

struct ModelOptions {
  std::string model;
  std::string adapter;
  std::string dtype = "as-stored";
  bool keep_quant = false;
  int64_t max_context = 0;
  std::string cache_type = "f32";
};

// The positional MODEL, --adapter, --dtype, --keep-quant.
void DeclareModel(CLI::App& app, ModelOptions& options);

// --cache-type.
void DeclareCache(CLI::App& app, ModelOptions& options);

// Error: no model named, everything that Session::Open finds.
Result<std::unique_ptr<infer::Session>> OpenSession(Invocation& inv, const ModelOptions& options);

}  // namespace edgewise::cli
