// Where training and validation batches come from.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "tensor/token_batch.h"

namespace edgewise::tune {

// Micro-batches, each a pure function of (pass over the data, index), so that a run resumes at any
// of them without saved iterators.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual int64_t batches_per_epoch() const = 0;  // > 0, the same in every pass
  virtual int64_t max_tokens() const = 0;         // of one batch
  // index in [0, batches_per_epoch()).
  virtual Result<TokenBatch> Get(int64_t epoch, int64_t index) = 0;
  // Changes when any batch does: a hash of the data, the order's seed and the packing.
  virtual std::string fingerprint() const = 0;
};

// Supervised tokens of a batch.
int64_t CountSupervised(const TokenBatch& batch);

}  // namespace edgewise::tune
