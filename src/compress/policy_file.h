// The policy that compression obeys, as a file that a person can read, edit and feed back:
//
//   {"schema": 1, "policy": "budget", "group": 64, "pattern": "unstructured",
//    "embedding_bits": 8, "head_bits": 8,
//    "layers": [{"q_proj": {"bits": 4, "sparsity": 0.5}, ...}, ...]}
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "compress/prune.h"
#include "compress/table.h"
#include "model/weights.h"

namespace edgewise::compress {

// How the zeros of a sparse layer lie.
struct PatternSpec {
  enum class Kind { kUnstructured, kNm, kBlock } kind = Kind::kUnstructured;
  NmPattern nm;  // kNm: n of m are zero
};
// "unstructured", "block", or "n:m" = n kept of every m, as in the usual "2:4".
Result<PatternSpec> ParsePattern(std::string_view name);

struct CompressionPolicy {
  std::string name;                      // how it was derived
  int64_t group = 64;                    // inputs per scale; 0: one scale per output row
  std::string pattern = "unstructured";  // of sparse layers: "unstructured", "2:4", "block"
  int embedding_bits = 8;                // 16: as stored
  int head_bits = 8;                     // of an untied head
  std::vector<std::array<Option, model::kLinearKinds>> layers;

  // Mean over the linears' weights.
  double average_bits(const model::ModelConfig& config) const;
  double average_sparsity(const model::ModelConfig& config) const;
};

OrderedJson PolicyToJson(const CompressionPolicy& policy);
// Checks every width, sparsity and name against the model. Errors say layer and linear.
Result<CompressionPolicy> PolicyFromJson(const Json& json, const model::ModelConfig& config);

}  // namespace edgewise::compress
