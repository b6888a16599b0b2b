// Options of generation, shared by generate and chat.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "infer/session.h"

namespace CLI {
class App;
}

namespace edgewise::cli {

struct SamplingFlags {
  int64_t max_tokens = 256;
  // Unset: what the model's generation_config.json says, else the defaults of SamplingOptions.
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k, repetition_last_n, seed;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool show_special = false;
};

void DeclareSampling(CLI::App& app, SamplingFlags& flags);

// Flags over the model's defaults. Without --seed a random one is drawn from the system.
infer::GenerateOptions MakeGenerateOptions(const SamplingFlags& flags,
                                           const infer::GenerationDefaults& defaults);

// Tokens of context that a prompt and --max-tokens behind it take.
int64_t ContextFor(std::span<const int32_t> prompt, const SamplingFlags& flags);

}  // namespace edgewise::cli
