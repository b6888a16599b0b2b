// What merge and export --to hf have in common.
#pragma once

#include <optional>
#include <string>

#include "cli/console.h"
#include "infer/merge.h"

namespace edgewise::cli {

// "as-stored" gives nothing.
Result<std::optional<DType>> ParseMergeDType(const std::string& text);
// --memory of merge and export; 0 when it is not given. Error: what is no size.
Result<int64_t> ParseMemory(const std::string& text);

void SetMergeResult(const infer::MergeReport& report, const std::string& out, Console& console);

}  // namespace edgewise::cli
