#include "cli/session_memory.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "exec/memory.h"
#include "infer/exit_scorer.h"
#include "model/training_pass.h"
#include "model/weight_stream.h"

namespace edgewise::cli {
namespace {

// What kernels pack at once, and each thread for itself.
constexpr int64_t kSharedScratch = int64_t{12} << 20;
constexpr int64_t kScratchPerThread = int64_t{2} << 20;

// The most that decoding or scoring takes beside the weights, whichever is larger.
Result<int64_t> SessionBytes(ExecContext& exec, infer::Session& session,
                             const ModelOptions& options) {
  const model::ModelConfig& c = session.model().config();
  int64_t bytes = 0;
  if (options.decodes) {
    EW_ASSIGN(const infer::TokenModel* decoder, session.decoder());
    bytes = decoder->resident_bytes();
  }
  if (options.scored) {
    const int64_t rows = options.scored(c);
    const model::TrainingPass pass(exec, session.model(), rows);
    model::PassOptions forward;
    forward.lora = session.adapter();
    forward.activation_bits = session.activation_bits();
    // Hidden states of the rows beside the pass itself.
    int64_t scoring = pass.MemoryNeeded(forward).total() + rows * c.hidden * 4;
    if (session.exits() != nullptr) {
      scoring += infer::ExitScorer::BytesBeside(c, session.exits()->size(), rows);
    }
    bytes = std::max(bytes, scoring);
  }
  return bytes + options.beside + kSharedScratch + exec.threads() * kScratchPerThread;
}

// Bytes of weights that are mapped and not yet resident: they become so as they are used.
int64_t Unmapped(const model::Model& model, int64_t before) {
  return std::max<int64_t>(0, before + model.weight_bytes() - ReadProcessMemory().rss_bytes);
}

// The most tokens of context that `limit` has room for: all of the model's where they fit beside
// all weights, else as many as fit beside these, but a usual conversation's before weights that
// stay in memory.
Result<int64_t> ContextWithin(ExecContext& exec, infer::Session& session, int64_t limit,
                              const ModelOptions& options, int64_t before) {
  constexpr int64_t kUsual = 4096;
  constexpr int64_t kStep = 256;  // not below what is read at once: from there on it is linear
  constexpr int64_t kSlack = int64_t{2} << 20;  // resident bytes vary from one moment to the next
  const int64_t most = session.model().config().max_positions;
  if (most <= 2 * kStep) return most;
  const auto bytes = [&](int64_t context) -> Result<int64_t> {
    session.LimitContext(context);
    return SessionBytes(exec, session, options);
  };
  const int64_t resident = ReadProcessMemory().rss_bytes;
  EW_ASSIGN(const int64_t low, bytes(kStep));
  EW_ASSIGN(const int64_t high, bytes(2 * kStep));
  const int64_t per_step = std::max<int64_t>(high - low, 1);
  // Beside so many bytes of weights.
  const auto room = [&](int64_t weights) {
    const int64_t rest = limit - resident - weights - low - kSlack;
    return rest < 0 ? kStep : (1 + rest / per_step) * kStep;
  };
  const model::WeightStream* stream = session.model().stream();
  const int64_t all = stream != nullptr ? stream->total_bytes() : Unmapped(session.model(), before);
  const int64_t least = stream != nullptr ? stream->largest_unit_bytes() : all;
  return std::min(most, std::max(room(all), std::min(room(least), kUsual)));
}

}  // namespace

Status SetContext(Invocation& inv, infer::Session& session, int64_t limit,
                  const ModelOptions& options, int64_t before) {
  const int64_t most = session.model().config().max_positions;
  if (options.max_context > most) {
    return InvalidArgument(fmt::format("--ctx {} is more than the {} positions of this model",
                                       options.max_context, most));
  }
  if (!options.decodes || options.max_context > 0) return Status::Ok();
  if (options.needed_context) {
    EW_ASSIGN(const int64_t needed, options.needed_context(session));
    session.LimitContext(std::clamp<int64_t>(needed, 1, most));
  } else if (limit > 0) {
    EW_ASSIGN(ExecContext * exec, inv.Exec());
    EW_ASSIGN(const int64_t context, ContextWithin(*exec, session, limit, options, before));
    session.LimitContext(context);
    if (context < most) {
      inv.console().Log(fmt::format(
          "a context of {} tokens, so that it fits --memory; the model knows {} (--ctx)", context,
          most));
    }
  }
  return Status::Ok();
}

Status FitSession(Invocation& inv, infer::Session& session, int64_t limit,
                  const ModelOptions& options, int64_t before) {
  EW_ASSIGN(ExecContext * exec, inv.Exec());
  model::WeightStream* stream = session.model().stream();
  const int64_t resident = ReadProcessMemory().rss_bytes;
  EW_ASSIGN(const int64_t work, SessionBytes(*exec, session, options));
  const int64_t rest = resident + work;
  // Opening may have been the peak.
  const int64_t opened = ReadProcessMemory().peak_rss_bytes;
  const auto smallest = [&](int64_t bytes) {
    // What is resident varies a little from one process to the next.
    return (std::max(bytes, opened) >> 20) + 2;
  };
  if (stream == nullptr) {
    // Held as a whole (GGUF files); mapped weights become resident as they are used.
    const int64_t mapped = Unmapped(session.model(), before);
    if (rest + mapped <= limit && opened <= limit) return Status::Ok();
    return OutOfMemory(fmt::format(
        "this does not fit {}: it takes {}, of which weights {}. The smallest limit that works is "
        "--memory {}MiB; a shorter context (--ctx, --max-tokens) makes it smaller, and weights of "
        "a GGUF file "
        "cannot stay on disk",
        FormatBytes(limit), FormatBytes(std::max(rest + mapped, opened)),
        FormatBytes(session.model().weight_bytes()), smallest(rest + mapped)));
  }
  const int64_t least = stream->largest_unit_bytes();
  const int64_t budget = std::min(limit - rest, stream->total_bytes());
  if (budget < least || opened > limit) {
    return OutOfMemory(fmt::format(
        "this does not fit {}: {} beside {} for the largest piece of the weights{}. The smallest "
        "limit that works is --memory {}MiB; a shorter context (--ctx, --max-tokens) makes it "
        "smaller",
        FormatBytes(limit), FormatBytes(rest), FormatBytes(least),
        opened > rest + least ? ", and opening the model took " + FormatBytes(opened) : "",
        smallest(rest + least)));
  }
  if (budget < stream->total_bytes()) {
    inv.console().Log(fmt::format(
        "predicted peak {}: weights are read from disk as they are needed, {} of {} in memory",
        FormatBytes(rest + budget), FormatBytes(budget), FormatBytes(stream->total_bytes())));
  }
  return stream->SetBudget(budget);
}

}  // namespace edgewise::cli
