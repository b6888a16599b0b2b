// Calibration text and the sensitivity table, for the commands that measure and compress.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/command.h"
#include "compress/memory_need.h"
#include "compress/sensitivity.h"
#include "infer/session.h"

namespace CLI {
class App;
}

namespace edgewise::cli {

struct CalibrationOptions {
  std::string text;  // file
  int64_t windows = 16;
  int64_t window_tokens = 512;
  uint64_t seed = 42;
  std::string memory;  // limit of resident memory; "": none
  int64_t group = 64;
  std::string pruner = "sparsegpt", quantizer = "gptq", pattern = "unstructured";
  double damp = 0.01;
  int64_t kl_windows = 0;
  int64_t loss_tokens = 2048;
};

void DeclareCalibration(CLI::App& app, CalibrationOptions& options);

// Windows of the calibration text, tokenised by the session's tokenizer.
Result<std::vector<TokenBatch>> ReadCalibration(const infer::Session& session,
                                                const CalibrationOptions& options);

// The method that linears are measured and compressed with (no policy, no source).
Result<compress::CompressOptions> MethodOf(const CalibrationOptions& options);

// Bytes for calibration states under --memory (without a limit: 1 GiB). `need`: as computed with
// the process's present size. Error (kOutOfMemory): the limit is too small, with the smallest.
Result<int64_t> StateMemory(const CalibrationOptions& options, const compress::MemoryNeed& need);

// The table in `path` when it was made from the same model, text and options; else measured (with
// progress) and written there ("" : kept in memory only). `linears` false: the table may have been
// made with other methods, which only its measures of linears depend on.
Result<compress::SensitivityTable> TableFor(Invocation& inv, const infer::Session& session,
                                            const CalibrationOptions& options,
                                            const std::vector<TokenBatch>& windows,
                                            const std::string& path, bool linears = true);

}  // namespace edgewise::cli
