// How a byte-level BPE model of a GGUF file splits text into words, by tokenizer.ggml.pre.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace edgewise::text {

struct GgufSplitting {
  std::vector<std::string> expressions;  // applied one after the other
  bool ignore_merges = false;
  bool add_bos = false;
};

// Error: a name that is not known here.
Result<GgufSplitting> GgufSplittingOf(std::string_view pre);

}  // namespace edgewise::text
