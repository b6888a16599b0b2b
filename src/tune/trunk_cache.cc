#include "tune/trunk_cache.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/rng.h"
#include "base/units.h"
#include "io/env.h"

namespace edgewise::tune {
namespace {

constexpr int64_t kHeaderBytes = 4096;
constexpr char kMagic[8] = {'E', 'W', 'T', 'R', 'U', 'N', 'K', '1'};
constexpr size_t kMaxStarts = 256;
constexpr uint64_t kPinSeed = 0x7472756e6b;

// The header as bytes: fixed fields, the starts, zeros, and the hash of all that in the last 8.
Result<std::vector<std::byte>> Header(const TrunkCacheKey& key, std::span<const int64_t> doc_tokens,
                                      int64_t pinned) {
  if (key.starts.empty() || key.starts.size() > kMaxStarts) {
    return InvalidArgument(fmt::format("a trunk cache of {} window starts", key.starts.size()));
  }
  std::vector<std::byte> bytes(kHeaderBytes, std::byte{0});
  std::byte* p = bytes.data();
  const auto put = [&p](const void* data, size_t n) {
    std::memcpy(p, data, n);
    p += n;
  };
  const auto put64 = [&put](uint64_t v) { put(&v, 8); };
  put(kMagic, 8);
  put64(key.base_hash);
  put64(key.data_hash);
  put64(XXH3_64bits(doc_tokens.data(), doc_tokens.size_bytes()));
  put64(doc_tokens.size());
  put64(static_cast<uint64_t>(pinned));
  put64(static_cast<uint64_t>(key.hidden));
  put64(static_cast<uint64_t>(key.codec));
  put64(key.starts.size());
  for (int64_t s : key.starts) put64(static_cast<uint64_t>(s));
  const uint64_t hash = XXH3_64bits(bytes.data(), kHeaderBytes - 8);
  std::memcpy(bytes.data() + kHeaderBytes - 8, &hash, 8);
  return bytes;
}

// 0 means absent.
uint64_t EntryChecksum(std::span<const std::byte> bytes) {
  const uint64_t h = XXH3_64bits(bytes.data(), bytes.size());
  return h != 0 ? h : 1;
}

}  // namespace

int64_t TrunkCache::EntryBytes(int64_t doc) const {
  return tokens_[static_cast<size_t>(doc)] * EncodedRowBytes(key_.codec, key_.hidden);
}

int64_t TrunkCache::TableOffset(int64_t doc, int start) const {
  return kHeaderBytes + 8 * (static_cast<int64_t>(docs_) * start + doc);
}

int64_t TrunkCache::DataOffset(int64_t doc, int start) const {
  const int64_t row = EncodedRowBytes(key_.codec, key_.hidden);
  const auto starts = static_cast<int64_t>(key_.starts.size());
  const int64_t table_end = kHeaderBytes + 8 * static_cast<int64_t>(docs_) * starts;
  return table_end + row * (token_offset_.back() * start + token_offset_[static_cast<size_t>(doc)]);
}

Result<std::unique_ptr<TrunkCache>> TrunkCache::Open(const std::string& path,
                                                     const TrunkCacheKey& key,
                                                     std::span<const int64_t> doc_tokens,
                                                     int64_t max_bytes) {
  return OpenOrFind(path, key, doc_tokens, max_bytes, /*find=*/false);
}

Result<std::unique_ptr<TrunkCache>> TrunkCache::Find(const std::string& path,
                                                     const TrunkCacheKey& key,
                                                     std::span<const int64_t> doc_tokens,
                                                     int64_t max_bytes) {
  if (!PosixEnv().Exists(path)) return std::unique_ptr<TrunkCache>();
  return OpenOrFind(path, key, doc_tokens, max_bytes, /*find=*/true);
}

Result<std::unique_ptr<TrunkCache>> TrunkCache::OpenOrFind(const std::string& path,
                                                           const TrunkCacheKey& key,
                                                           std::span<const int64_t> doc_tokens,
                                                           int64_t max_bytes, bool find) {
  if (key.hidden <= 0 || key.hidden > 1 << 20) {
    return InvalidArgument(fmt::format("a trunk cache of hidden size {}", key.hidden));
  }
  std::unique_ptr<TrunkCache> cache(new TrunkCache);
  cache->key_ = key;
  cache->docs_ = doc_tokens.size();
  cache->tokens_.assign(doc_tokens.begin(), doc_tokens.end());
  const auto starts = static_cast<int64_t>(key.starts.size());
  const auto docs = static_cast<int64_t>(doc_tokens.size());
  const int64_t row = EncodedRowBytes(key.codec, key.hidden);

  int64_t room = max_bytes > 0 ? max_bytes - kHeaderBytes - 8 * docs * starts : INT64_MAX;
  cache->pinned_.assign(cache->docs_, 0);
  // A fixed order that does not favour the beginning of the data.
  for (int64_t doc : RandomPermutation(docs, Rng(kPinSeed, RngStream::kDataOrder))) {
    const int64_t bytes = doc_tokens[static_cast<size_t>(doc)] * row * starts;
    if (bytes > room) continue;
    room -= bytes;
    cache->pinned_[static_cast<size_t>(doc)] = 1;
  }
  cache->token_offset_.assign(cache->docs_ + 1, 0);
  for (size_t d = 0; d < cache->docs_; ++d) {
    cache->token_offset_[d + 1] =
        cache->token_offset_[d] + (cache->pinned_[d] != 0 ? doc_tokens[d] : 0);
  }
  cache->file_bytes_ =
      kHeaderBytes + 8 * docs * starts + row * starts * cache->token_offset_.back();
  cache->table_.assign(cache->docs_ * static_cast<size_t>(starts), 0);

  EW_ASSIGN(const std::vector<std::byte> header,
            Header(key, doc_tokens, cache->pinned_documents()));
  EW_ASSIGN(cache->file_, RandomFile::Open(path));
  EW_ASSIGN(const int64_t size, cache->file_->Size());
  if (size == cache->file_bytes_) {
    std::vector<std::byte> stored(kHeaderBytes);
    EW_RETURN_IF_ERROR(cache->file_->Read(0, stored));
    cache->continued_ = stored == header;
  }
  const std::span<std::byte> table = std::as_writable_bytes(std::span(cache->table_));
  if (cache->continued_) {
    EW_RETURN_IF_ERROR(cache->CheckRoom());
    EW_RETURN_IF_ERROR(cache->file_->Read(kHeaderBytes, table));
    return cache;
  }
  if (find) return std::unique_ptr<TrunkCache>();
  // To zero length first: old checksums must not survive next to a new header.
  EW_RETURN_IF_ERROR(cache->file_->Resize(0));
  EW_RETURN_IF_ERROR(cache->CheckRoom());
  EW_RETURN_IF_ERROR(cache->file_->Resize(cache->file_bytes_));
  EW_RETURN_IF_ERROR(cache->file_->Sync());
  EW_RETURN_IF_ERROR(cache->file_->Write(0, header));
  return cache;
}

// Now rather than in the middle of a run, which would then have no room for its checkpoints either.
Status TrunkCache::CheckRoom() const {
  const std::string directory = DirName(file_->path());
  EW_ASSIGN(const int64_t free, PosixEnv().FreeBytes(directory));
  EW_ASSIGN(const int64_t allocated, file_->AllocatedBytes());
  if (file_bytes_ - allocated <= free) return Status::Ok();
  return IoError(
      fmt::format("the states below the windows take {} in {}, where {} are free: keep fewer "
                  "(--cache-limit) or "
                  "none (--no-cache), or choose another run directory",
                  FormatBytes(file_bytes_), file_->path(), FormatBytes(free)));
}

Status TrunkCache::SetChecksum(int64_t doc, int start, uint64_t value) {
  table_[static_cast<size_t>(start) * docs_ + static_cast<size_t>(doc)] = value;
  return file_->Write(TableOffset(doc, start), std::as_bytes(std::span(&value, 1)));
}

Status TrunkCache::Put(int64_t doc, int start, const float* h) {
  buffer_.resize(static_cast<size_t>(EntryBytes(doc)));
  EncodeRows(key_.codec, tokens_[static_cast<size_t>(doc)], key_.hidden, h, buffer_.data());
  EW_RETURN_IF_ERROR(file_->Write(DataOffset(doc, start), buffer_));
  return SetChecksum(doc, start, EntryChecksum(buffer_));
}

Result<bool> TrunkCache::Get(int64_t doc, int start, float* out) {
  if (!Pinned(doc) || !Has(doc, start)) return false;
  buffer_.resize(static_cast<size_t>(EntryBytes(doc)));
  EW_RETURN_IF_ERROR(file_->Read(DataOffset(doc, start), buffer_));
  if (EntryChecksum(buffer_) != checksum(doc, start)) {
    ++damaged_;
    EW_RETURN_IF_ERROR(SetChecksum(doc, start, 0));
    return false;
  }
  DecodeRows(key_.codec, tokens_[static_cast<size_t>(doc)], key_.hidden, buffer_.data(), out);
  return true;
}

Status TrunkCache::Invalidate(int start) {
  const auto begin = table_.begin() + static_cast<int64_t>(static_cast<size_t>(start) * docs_);
  std::fill(begin, begin + static_cast<int64_t>(docs_), 0);
  return file_->Write(TableOffset(0, start), std::as_bytes(std::span(table_).subspan(
                                                 static_cast<size_t>(start) * docs_, docs_)));
}

int64_t TrunkCache::memory_bytes() const {
  return static_cast<int64_t>(
      buffer_.capacity() + pinned_.capacity() +
      8 * (table_.capacity() + token_offset_.capacity() + tokens_.capacity()));
}

int64_t TrunkCache::pinned_documents() const {
  return std::count(pinned_.begin(), pinned_.end(), uint8_t{1});
}

}  // namespace edgewise::tune
