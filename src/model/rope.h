// cos/sin tables of rotary position embeddings (RoFormer, arXiv 2104.09864), computed in double.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "model/config.h"

namespace edgewise::model {

// The D/2 angular frequencies (radians per position) after scaling, in double.
std::vector<double> RopeFrequencies(const RopeConfig& rope, int64_t head_dim);

struct RopeTable {
  FloatBuffer cos, sin;  // [positions, D/2]
};

class RopeTables {
 public:
  // Tables for positions < n of every rope of the config; keeps what is already large enough.
  void Ensure(const ModelConfig& config, int64_t n);
  int64_t positions() const { return positions_; }
  const RopeTable& operator[](int rope) const { return tables_[static_cast<size_t>(rope)]; }
  int64_t bytes() const;

 private:
  int64_t positions_ = 0;
  std::vector<RopeTable> tables_;
};

}  // namespace edgewise::model
