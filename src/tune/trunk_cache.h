// Hidden states of the frozen trunk at the window starts, on disk, one entry per (document, start).
// The trunk never changes while windows above it are tuned, so from the second epoch on a step
// reads its start state instead of running the layers below it.
//
// Every entry carries a checksum that is written after its data: an entry torn by a power cut, or
// damaged later, reads as absent and is made again. The file is bound to a key (base, data, starts,
// codec); a file with another key is started anew.
//
// File (little-endian): 4096-byte header {magic "EWTRUNK1", key fields, xxh3 of the header}, table
// of u64 checksums [starts, documents] (0: absent), then for each start the documents in order,
// each tokens * EncodedRowBytes bytes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "io/random_file.h"
#include "tune/hidden_codec.h"

namespace edgewise::tune {

struct TrunkCacheKey {
  uint64_t base_hash = 0;  // of everything that the trunk's output depends on
  uint64_t data_hash = 0;  // of the tokens of every document, in order
  int64_t hidden = 0;
  HiddenCodec codec = HiddenCodec::kBF16;
  std::vector<int64_t> starts;  // layer indices, ascending; start 0 (the embedding) needs no cache
};

class TrunkCache {
 public:
  // Opens or creates. doc_tokens: length of each document. At most `max_bytes` of file (0: no
  // limit): when not everything fits, a fixed pseudo-random subset of the documents is kept and the
  // others are never stored, because cycling through a too small cache would evict every entry
  // before its use. Errors: I/O; a disk without room for the whole file; a hidden size or a
  // document count out of range.
  static Result<std::unique_ptr<TrunkCache>> Open(const std::string& path, const TrunkCacheKey& key,
                                                  std::span<const int64_t> doc_tokens,
                                                  int64_t max_bytes);
  // The same of a file of this key that is there; null, and nothing is changed, where there is
  // none.
  static Result<std::unique_ptr<TrunkCache>> Find(const std::string& path, const TrunkCacheKey& key,
                                                  std::span<const int64_t> doc_tokens,
                                                  int64_t max_bytes);

  // Whether this document is one of those that are stored at all.
  bool Pinned(int64_t doc) const { return pinned_[static_cast<size_t>(doc)] != 0; }
  bool Has(int64_t doc, int start) const { return checksum(doc, start) != 0; }
  // h [tokens of doc, hidden]. REQUIRES Pinned(doc).
  Status Put(int64_t doc, int start, const float* h);
  // Fills out and returns true; false when absent or damaged (the entry is then forgotten).
  Result<bool> Get(int64_t doc, int start, float* out);
  // Forgets every entry of a start (its trunk has changed).
  Status Invalidate(int start);
  Status Sync() { return file_->Sync(); }

  int64_t file_bytes() const { return file_bytes_; }
  int64_t memory_bytes() const;  // of the tables and the buffer
  int64_t pinned_documents() const;
  int64_t damaged_entries() const { return damaged_; }
  // True when an existing file was continued, false when it was new or of another key.
  bool continued() const { return continued_; }

 private:
  static Result<std::unique_ptr<TrunkCache>> OpenOrFind(const std::string& path,
                                                        const TrunkCacheKey& key,
                                                        std::span<const int64_t> doc_tokens,
                                                        int64_t max_bytes, bool find);
  Status CheckRoom() const;
  TrunkCache() = default;
  uint64_t checksum(int64_t doc, int start) const {
    return table_[static_cast<size_t>(start) * docs_ + static_cast<size_t>(doc)];
  }
  int64_t TableOffset(int64_t doc, int start) const;
  int64_t DataOffset(int64_t doc, int start) const;
  int64_t EntryBytes(int64_t doc) const;
  Status SetChecksum(int64_t doc, int start, uint64_t value);

  std::unique_ptr<RandomFile> file_;
  TrunkCacheKey key_;
  size_t docs_ = 0;
  std::vector<int64_t> tokens_;
  std::vector<uint8_t> pinned_;
  std::vector<int64_t> token_offset_;  // tokens of pinned documents before this one; docs_ + 1
  std::vector<uint64_t> table_;
  std::vector<std::byte> buffer_;
  int64_t file_bytes_ = 0, damaged_ = 0;
  bool continued_ = false;
};

}  // namespace edgewise::tune
