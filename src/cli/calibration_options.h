// Calibration text and the sensitivity table, for the commands that measure and compress.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/command.h"
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
  std::string memory = "1GiB";  // for calibration states
  int64_t group = 64;
};

void DeclareCalibration(CLI::App& app, CalibrationOptions& options);

// Windows of the calibration text, tokenised by the session's tokenizer.
Result<std::vector<TokenBatch>> ReadCalibration(const infer::Session& session,
                                                const CalibrationOptions& options);

// The table in `path` when it was made from the same model, text and options; else measured (with
// progress) and written there ("" : kept in memory only).
Result<compress::SensitivityTable> TableFor(Invocation& inv, const infer::Session& session,
                                            const CalibrationOptions& options,
                                            const std::vector<TokenBatch>& windows,
                                            const std::string& path);

}  // namespace edgewise::cli
