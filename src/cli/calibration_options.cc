#include "cli/calibration_options.h"

#include <fmt/format.h>
#include <malloc.h>

#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/counter_line.h"
#include "cli/model_options.h"
#include "exec/memory.h"
#include "io/env.h"
#include "tune/fingerprint.h"

namespace edgewise::cli {
namespace {
constexpr int64_t kMaxTextBytes = int64_t{256} << 20;
}

void DeclareCalibration(CLI::App& app, CalibrationOptions& o) {
  app.add_option("--calibration", o.text,
                 "Text file to measure on: like what the model will be used for")
      ->required();
  app.add_option("--windows", o.windows, "Windows of calibration text")
      ->check(CLI::Range(int64_t{1}, int64_t{100000}))
      ->capture_default_str();
  app.add_option("--window-tokens", o.window_tokens, "Tokens of a window")
      ->check(CLI::Range(int64_t{8}, int64_t{1} << 20))
      ->capture_default_str();
  app.add_option("--group", o.group, "Inputs per scale: 32, 64, 128, or 0 for one per row")
      ->check(CLI::IsMember({0, 32, 64, 128}))
      ->capture_default_str();
  AddSize(app, "--memory", o.memory,
          "Most resident memory, for example 1.5GiB: kept, or refused with the smallest");
  app.add_option("--pattern", o.pattern, "Of the zeros: unstructured, block, or n:m")
      ->capture_default_str();
  app.add_option("--pruner", o.pruner, "sparsegpt, wanda or magnitude")->capture_default_str();
  app.add_option("--quantizer", o.quantizer, "gptq or rtn")->capture_default_str();
  app.add_option("--damp", o.damp, "Damping of the Hessian, as a share of its mean diagonal")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--loss-tokens", o.loss_tokens,
                 "Calibration tokens on which the loss of each linear's options is predicted")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--kl-windows", o.kl_windows,
                 "Windows on which the final logits' divergence is measured for whole layers")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--seed", o.seed, "Of the choice of windows and of random policies")
      ->capture_default_str();
}

Result<std::vector<TokenBatch>> ReadCalibration(const infer::Session& session,
                                                const CalibrationOptions& o) {
#ifdef __GLIBC__
  // Large blocks go back to the system when they are freed: the memory limit is of what is
  // resident.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
#endif
  EW_ASSIGN(const std::string text, PosixEnv().ReadFile(o.text, kMaxTextBytes));
  EW_ASSIGN(const std::vector<int32_t> ids,
            session.tokenizer().Encode(text, /*add_special_tokens=*/false));
  const int64_t length = std::min(o.window_tokens, session.model().config().max_positions);
  return compress::MakeWindows(ids, o.windows, length, o.seed).WithContext(o.text);
}

Result<compress::CompressOptions> MethodOf(const CalibrationOptions& o) {
  compress::CompressOptions method;
  EW_ASSIGN(method.pruner, compress::ParsePruner(o.pruner));
  EW_ASSIGN(method.quantizer, compress::ParseQuantizer(o.quantizer));
  EW_RETURN_IF_ERROR(compress::ParsePattern(o.pattern).status());
  method.percdamp = o.damp;
  method.policy.group = o.group;
  method.policy.pattern = o.pattern;
  return method;
}

Result<int64_t> StateMemory(const CalibrationOptions& o, const compress::MemoryNeed& need) {
  if (o.memory.empty()) return int64_t{1} << 30;
  EW_ASSIGN(const int64_t limit, ParseBytes(o.memory));
  return compress::StatesWithin(need, limit).WithContext("--memory");
}

Result<compress::SensitivityTable> TableFor(Invocation& inv, const infer::Session& session,
                                            const CalibrationOptions& o,
                                            const std::vector<TokenBatch>& windows,
                                            const std::string& path, bool linears) {
  EW_ASSIGN(const std::string model_hash, tune::FingerprintModel(session.location().path));
  if (!path.empty() && PosixEnv().Exists(path)) {
    EW_ASSIGN(const Json json, ReadJsonFile(path));
    EW_ASSIGN(compress::SensitivityTable table, compress::TableFromJson(json).WithContext(path));
    const bool method = !linears || (table.pruner == o.pruner && table.quantizer == o.quantizer &&
                                     table.pattern == o.pattern);
    const bool divergence =
        o.kl_windows == 0 || (!table.layers.empty() && !table.layers[0].quantized.empty() &&
                              table.layers[0].quantized[0].loss >= 0);
    if (table.model_hash == model_hash && table.group == o.group && method && divergence &&
        table.calibration_hash == compress::HashWindows(windows)) {
      inv.console().Log(fmt::format("{}: sensitivities of this model and text, reused", path));
      return table;
    }
    inv.console().Log(
        fmt::format("{}: made from another model, text or method; measuring anew", path));
  }
  EW_ASSIGN(ExecContext * exec, inv.Exec());
  compress::ProfileOptions options;
  EW_ASSIGN(options.method, MethodOf(o));
  options.kl_windows = o.kl_windows;
  options.loss_tokens = o.loss_tokens;
  const compress::MemoryNeed need = compress::ProfileNeed(*exec, session.model(), windows, options,
                                                          ReadProcessMemory().rss_bytes);
  EW_ASSIGN(options.memory_bytes, StateMemory(o, need));
  options.scratch_path = (path.empty() ? std::string("edgewise-profile") : path) + ".tmp";
  Result<compress::SensitivityTable> measured = [&] {
    CounterLine line(inv.console(), "layer");
    return compress::MeasureSensitivity(
        *exec, session.model(), windows, options, &inv.stop(),
        [&](const compress::ProfileProgress& p) { line.Update(p.layer, p.layers); });
  }();
  if (!measured.ok()) return measured.status();
  measured->model_hash = model_hash;
  if (!path.empty()) {
    EW_RETURN_IF_ERROR(
        WriteFileAtomic(PosixEnv(), path, DumpJson(TableToJson(*measured), 1) + "\n"));
  }
  return measured;
}

}  // namespace edgewise::cli
