#include "compress/calibration.h"

#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>

#include "base/rng.h"

namespace edgewise::compress {

Result<std::vector<TokenBatch>> MakeWindows(std::span<const int32_t> ids, int64_t windows,
                                            int64_t length, uint64_t seed) {
  const auto n = static_cast<int64_t>(ids.size());
  length = std::min(length, n);
  if (windows < 1 || length < 8) {
    return InvalidArgument(fmt::format(
        "{} tokens of calibration text give no window of at least 8 tokens; give more text", n));
  }
  std::vector<int64_t> starts;
  if (n / length <= windows) {
    for (int64_t s = 0; s + length <= n; s += length) starts.push_back(s);
  } else {
    // Without overlap: random cells of a grid with a random origin.
    Rng rng(seed, RngStream::kCalibration);
    const auto origin = static_cast<int64_t>(rng.NextBelow(static_cast<uint64_t>(n % length) + 1));
    std::vector<int64_t> cells =
        RandomPermutation(n / length, Rng(seed, RngStream::kCalibration, 1));
    cells.resize(static_cast<size_t>(windows));
    std::sort(cells.begin(), cells.end());
    for (int64_t c : cells) starts.push_back(origin + c * length);
  }
  std::vector<TokenBatch> out;
  for (int64_t s : starts) {
    TokenBatch& b = out.emplace_back();
    for (int64_t t = 0; t < length; ++t) {
      b.ids.push_back(ids[static_cast<size_t>(s + t)]);
      b.positions.push_back(static_cast<int32_t>(t));
      b.first_key.push_back(0);
      b.targets.push_back(t + 1 < length ? ids[static_cast<size_t>(s + t + 1)]
                                         : TokenBatch::kNoTarget);
    }
  }
  return out;
}

std::string HashWindows(const std::vector<TokenBatch>& windows) {
  uint64_t hash = windows.size();
  for (const TokenBatch& b : windows) {
    hash = XXH3_64bits_withSeed(b.ids.data(), b.ids.size() * sizeof(int32_t), hash);
  }
  return fmt::format("xxh3:{:016x}", hash);
}

Result<std::unique_ptr<StateStore>> StateStore::Create(const std::vector<TokenBatch>& windows,
                                                       int64_t hidden, int64_t memory_bytes,
                                                       const std::string& path) {
  std::unique_ptr<StateStore> store(new StateStore);
  store->offset_.push_back(0);
  for (const TokenBatch& b : windows) {
    store->offset_.push_back(store->offset_.back() + b.size() * hidden);
  }
  const int64_t bytes = store->offset_.back() * static_cast<int64_t>(sizeof(float));
  if (bytes <= memory_bytes) {
    store->memory_ = FloatBuffer(store->offset_.back());
    return store;
  }
  EW_ASSIGN(store->file_, RandomFile::Open(path));
  EW_RETURN_IF_ERROR(store->file_->Resize(bytes));
  return store;
}

StateStore::~StateStore() {
  if (file_ != nullptr) ::unlink(file_->path().c_str());
}

Status StateStore::Read(int64_t window, float* out) const {
  const int64_t at = offset_[static_cast<size_t>(window)];
  const int64_t n = offset_[static_cast<size_t>(window) + 1] - at;
  if (file_ == nullptr) {
    std::copy_n(memory_.data() + at, n, out);
    return Status::Ok();
  }
  return file_->Read(4 * at, std::as_writable_bytes(std::span(out, static_cast<size_t>(n))));
}

Status StateStore::Write(int64_t window, const float* h) {
  const int64_t at = offset_[static_cast<size_t>(window)];
  const int64_t n = offset_[static_cast<size_t>(window) + 1] - at;
  if (file_ == nullptr) {
    std::copy_n(h, n, memory_.data() + at);
    return Status::Ok();
  }
  EW_RETURN_IF_ERROR(file_->Write(4 * at, std::as_bytes(std::span(h, static_cast<size_t>(n)))));
  // Read once per layer, in order: the page cache would only push the weights out.
  file_->DropCached(4 * at, 4 * n);
  return Status::Ok();
}

}  // namespace edgewise::compress
