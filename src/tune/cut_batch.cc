#include "tune/cut_batch.h"

#include <cstddef>
#include <utility>

namespace edgewise::tune {
namespace {

TokenBatch Part(const TokenBatch& batch, int64_t begin, int64_t end) {
  const auto part = [&](const std::vector<int32_t>& from) {
    return std::vector<int32_t>(from.begin() + begin, from.begin() + end);
  };
  TokenBatch out{part(batch.ids), part(batch.positions), part(batch.first_key),
                 part(batch.targets)};
  for (int32_t& key : out.first_key) key -= static_cast<int32_t>(begin);
  return out;
}

}  // namespace

std::vector<TokenBatch> CutBatch(TokenBatch batch, int64_t tokens) {
  std::vector<TokenBatch> out;
  const int64_t size = batch.size();
  if (tokens < 1 || size <= tokens) {
    out.push_back(std::move(batch));
    return out;
  }
  int64_t begin = 0;     // of the part under way
  int64_t document = 0;  // of the document under way
  for (int64_t t = 1; t <= size; ++t) {
    if (t < size && batch.first_key[static_cast<size_t>(t)] != static_cast<int32_t>(t)) continue;
    // [document, t) is a whole one.
    if (t - begin > tokens && document > begin) {
      out.push_back(Part(batch, begin, document));
      begin = document;
    }
    document = t;
  }
  out.push_back(Part(batch, begin, size));
  return out;
}

}  // namespace edgewise::tune
