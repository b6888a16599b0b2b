// Micro-batches cut into smaller ones between documents, where memory is short.
#pragma once

#include <cstdint>
#include <vector>

#include "tensor/token_batch.h"

namespace edgewise::tune {

// The documents of `batch` in their order, as few batches in a row as hold at most `tokens` tokens
// each; a longer document is a batch of its own. tokens < 1: the batch as it is.
std::vector<TokenBatch> CutBatch(TokenBatch batch, int64_t tokens);

}  // namespace edgewise::tune
