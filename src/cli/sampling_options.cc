#include "cli/sampling_options.h"

#include <CLI/CLI.hpp>
#include <limits>
#include <random>

#include "base/checked.h"

namespace edgewise::cli {

void DeclareSampling(CLI::App& app, SamplingFlags& flags) {
  app.add_option("-n,--max-tokens", flags.max_tokens, "Most tokens to generate")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--temperature,--temp", flags.temperature, "0: always the most likely token");
  app.add_option("--top-k", flags.top_k, "Draw from the k most likely tokens; 0: all");
  app.add_option("--top-p", flags.top_p, "Draw from the fewest tokens that reach this probability");
  app.add_option("--min-p", flags.min_p,
                 "Leave out tokens below this share of the most likely one's probability");
  app.add_option("--repetition-penalty,--repeat-penalty", flags.repetition_penalty,
                 "Above 1: tokens that occurred become less likely");
  app.add_option("--repetition-last-n,--repeat-last-n", flags.repetition_last_n,
                 "How far back the penalty looks; -1: everywhere");
  app.add_option("--seed", flags.seed, "Of the random numbers; negative: a new one each time");
  app.add_option("--stop", flags.stop, "End before this text (may be given several times)")
      ->allow_extra_args(false);
  app.add_flag("--ignore-eos", flags.ignore_eos, "Go on after the end-of-sequence token");
  app.add_flag("--show-special", flags.show_special, "Show control tokens in the text");
}

int64_t ContextFor(std::span<const int32_t> prompt, const SamplingFlags& flags) {
  return CheckedAdd(static_cast<int64_t>(prompt.size()), flags.max_tokens)
      .value_or(std::numeric_limits<int64_t>::max());
}

infer::GenerateOptions MakeGenerateOptions(const SamplingFlags& flags,
                                           const infer::GenerationDefaults& defaults) {
  infer::GenerateOptions options;
  options.max_tokens = flags.max_tokens;
  infer::SamplingOptions& s = options.sampling;
  s = defaults.sampling;
  s.temperature = flags.temperature.value_or(s.temperature);
  s.top_k = flags.top_k.value_or(s.top_k);
  s.top_p = flags.top_p.value_or(s.top_p);
  s.min_p = flags.min_p.value_or(s.min_p);
  s.repetition_penalty = flags.repetition_penalty.value_or(s.repetition_penalty);
  s.repetition_last_n = flags.repetition_last_n.value_or(s.repetition_last_n);
  if (flags.seed && *flags.seed >= 0) {
    s.seed = static_cast<uint64_t>(*flags.seed);
  } else {
    s.seed = std::random_device()();
  }
  options.stop = flags.stop;
  options.ignore_eos = flags.ignore_eos;
  options.skip_special_tokens = !flags.show_special;
  return options;
}

}  // namespace edgewise::cli
