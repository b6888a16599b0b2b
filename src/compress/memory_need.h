// What measuring and compressing take at most, before they begin: --memory is a promise.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "compress/compressor.h"
#include "compress/sensitivity.h"
#include "model/model.h"
#include "tensor/token_batch.h"

namespace edgewise::compress {

// Bytes resident at the peak.
struct MemoryNeed {
  int64_t resident = 0;  // what the process holds before it begins: program, tokenizer, text
  int64_t mapped = 0;    // weights in mapped files that are in use at a time
  int64_t work = 0;      // buffers of the stage that takes most
  int64_t states = 0;    // calibration states, where they are kept in memory
  int64_t smallest() const { return resident + mapped + work; }  // states in a file
};

// `resident`: ReadProcessMemory().rss_bytes when the model has been opened and the text read.
MemoryNeed CompressNeed(ExecContext& ctx, const model::Model& model,
                        const std::vector<TokenBatch>& windows, const CompressOptions& options,
                        int64_t resident);

MemoryNeed ProfileNeed(ExecContext& ctx, const model::Model& model,
                       const std::vector<TokenBatch>& windows, const ProfileOptions& options,
                       int64_t resident);

// Bytes that calibration states may take under a limit. Error (kOutOfMemory) when the limit is too
// small, with the smallest one that is not and what would make it smaller.
Result<int64_t> StatesWithin(const MemoryNeed& need, int64_t limit_bytes);

}  // namespace edgewise::compress
