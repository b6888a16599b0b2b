// The states in which windows start: what the layers below a window make of a document. They are
// computed once per document and kept in a TrunkCache; without one they are computed each time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/status.h"
#include "exec/context.h"
#include "model/lora.h"
#include "model/model.h"
#include "model/training_pass.h"
#include "tensor/token_batch.h"
#include "tune/exits.h"
#include "tune/trunk_cache.h"

namespace edgewise::tune {

// What lies below a window.
enum class TrunkMode {
  kFrozen,      // the base without adapters (released code): every exit stands on its own
  kCumulative,  // the windows below with their adapters, tuned before and then frozen
};
Result<TrunkMode> ParseTrunkMode(std::string_view name);
std::string_view TrunkModeName(TrunkMode mode);

struct TrunkOptions {
  TrunkMode mode = TrunkMode::kFrozen;
  std::string cache_path;  // "": no cache
  HiddenCodec codec = HiddenCodec::kBF16;
  int64_t cache_max_bytes = 0;  // 0: no limit
  uint64_t base_hash = 0;       // of the base's weights: another base empties the cache
  int activation_bits = 0;      // model::PassOptions::activation_bits; another empties it too
  bool exact = false;           // model::PassOptions::exact_forward; so does this
  int64_t split_tokens = 0;     // TrainOptions::split_tokens: and so does this
  // How micro-batches are cut is not known yet: of the cache only what is there already is used,
  // and nothing is kept, until Trunk::Settle.
  bool undecided = false;
};

struct TrunkProgress {
  int exit = 0;
  int64_t documents_done = 0, documents = 0;
  int64_t tokens_done = 0, tokens = 0;
};
using TrunkProgressFn = std::function<void(const TrunkProgress&)>;

class Trunk {
 public:
  // `documents`: the ids of every document that batches will hold; others are computed each time.
  // `model` and `pass` must outlive the trunk; `pass` is used between its own runs.
  static Result<std::unique_ptr<Trunk>> Create(const model::Model& model, model::TrainingPass& pass,
                                               std::vector<Exit> exits,
                                               std::vector<std::vector<int32_t>> documents,
                                               int64_t max_tokens, TrunkOptions options);

  // Fills the cache for the window of `exit` (kFrozen: of every exit, in one pass over the data).
  // What is already there is kept. `lora`: the adapters below, for kCumulative. Error:
  // kInterrupted when `stop` was set; what was made stays.
  Status Prepare(int exit, const model::LoraAdapter* lora, const std::atomic<bool>* stop,
                 const TrunkProgressFn& progress);

  // From now on batches hold up to `max_tokens`, cut by `split_tokens`: documents are computed in
  // groups of that size, and states that were made in others are not used.
  Status SetMaxTokens(int64_t max_tokens, int64_t split_tokens);
  // That is how it stays: an undecided trunk opens its cache.
  Status Settle();

  // Whether this exit's window starts above the embedding at all.
  bool HasTrunk(int exit) const { return exits_[static_cast<size_t>(exit)].begin > 0; }

  // Whether the cache holds the states of every document, so that nothing below a window is run.
  bool Complete() const;

  // State of every token of the batch at the start of the exit's window -> out [tokens, hidden].
  // REQUIRES HasTrunk(exit).
  Status StartState(const TokenBatch& batch, int exit, const model::LoraAdapter* lora, float* out);

  // The adapters below the windows have changed from this exit's start on: entries are made anew.
  Status InvalidateFrom(int exit);

  const TrunkCache* cache() const { return cache_.get(); }
  int64_t computed_tokens() const { return computed_tokens_; }

 private:
  Trunk(const model::Model& model, model::TrainingPass& pass, std::vector<Exit> exits,
        std::vector<std::vector<int32_t>> documents, int64_t max_tokens, TrunkOptions options);

  struct Group {
    int64_t first = 0, count = 0;  // documents
  };
  void MakeGroups();
  Status OpenCache();
  int StartOf(int exit) const { return start_of_exit_[static_cast<size_t>(exit)]; }
  bool GroupComplete(const Group& group, int exit) const;
  // Computes and stores the starts of a group: all of them (kFrozen) or this exit's.
  Status MakeGroup(const Group& group, int exit, const model::LoraAdapter* lora);
  Status RunTo(const TokenBatch& batch, int exit, const model::LoraAdapter* lora, float* hidden);
  Status StoreRows(const Group& group, int exit, const float* hidden);
  int64_t FindDocument(std::span<const int32_t> ids) const;  // -1: unknown

  const model::Model& model_;
  model::TrainingPass& pass_;
  std::vector<Exit> exits_;
  std::vector<int> start_of_exit_;  // index into the cache's starts; -1: starts at the embedding
  std::vector<std::vector<int32_t>> documents_;
  std::unordered_multimap<uint64_t, int64_t> index_;  // hash of ids -> document
  // Documents are computed in fixed groups, so that an entry made again has the same bits.
  std::vector<Group> groups_;
  std::vector<int64_t> group_of_;
  int64_t max_tokens_;
  TrunkOptions options_;
  TrunkCacheKey key_;
  std::unique_ptr<TrunkCache> cache_;
  FloatBuffer scratch_;  // [max_tokens, hidden]
  int64_t computed_tokens_ = 0;
};

}  // namespace edgewise::tune
