#include "tune/trunk.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace edgewise::tune {

using model::LayerRange;

namespace {

uint64_t HashIds(std::span<const int32_t> ids) { return XXH3_64bits(ids.data(), ids.size_bytes()); }

// The documents of a stream, as [begin, end) token ranges.
std::vector<std::pair<int64_t, int64_t>> Documents(const TokenBatch& batch) {
  std::vector<std::pair<int64_t, int64_t>> out;
  for (int64_t t = 0; t < batch.size(); ++t) {
    if (batch.first_key[static_cast<size_t>(t)] == t) {
      if (!out.empty()) out.back().second = t;
      out.emplace_back(t, batch.size());
    }
  }
  return out;
}

void AppendDocument(std::span<const int32_t> ids, TokenBatch* batch) {
  const auto begin = static_cast<int32_t>(batch->size());
  for (size_t i = 0; i < ids.size(); ++i) {
    batch->ids.push_back(ids[i]);
    batch->positions.push_back(static_cast<int32_t>(i));
    batch->first_key.push_back(begin);
    batch->targets.push_back(TokenBatch::kNoTarget);
  }
}

}  // namespace

Result<TrunkMode> ParseTrunkMode(std::string_view name) {
  for (TrunkMode mode : {TrunkMode::kFrozen, TrunkMode::kCumulative}) {
    if (TrunkModeName(mode) == name) return mode;
  }
  return InvalidArgument(fmt::format("'{}' is not a trunk; known: frozen, cumulative", name));
}

std::string_view TrunkModeName(TrunkMode mode) {
  return mode == TrunkMode::kFrozen ? "frozen" : "cumulative";
}

Trunk::Trunk(const model::Model& model, model::TrainingPass& pass, std::vector<Exit> exits,
             std::vector<std::vector<int32_t>> documents, int64_t max_tokens, TrunkOptions options)
    : model_(model),
      pass_(pass),
      exits_(std::move(exits)),
      documents_(std::move(documents)),
      max_tokens_(max_tokens),
      options_(std::move(options)),
      scratch_(max_tokens * model.config().hidden) {}

Result<std::unique_ptr<Trunk>> Trunk::Create(const model::Model& model, model::TrainingPass& pass,
                                             std::vector<Exit> exits,
                                             std::vector<std::vector<int32_t>> documents,
                                             int64_t max_tokens, TrunkOptions options) {
  if (options.mode == TrunkMode::kCumulative) {
    for (size_t e = 0; e < exits.size(); ++e) {
      // What lies below a window has to be tuned before it and never after.
      if (e > 0 && (exits[e].begin <= exits[e - 1].begin || exits[e].begin > exits[e - 1].end ||
                    exits[e].end < exits[e - 1].end)) {
        return InvalidArgument(
            "a cumulative trunk needs windows that rise without gaps; leave out the window size");
      }
    }
  }
  std::unique_ptr<Trunk> trunk(new Trunk(model, pass, std::move(exits), std::move(documents),
                                         max_tokens, std::move(options)));
  TrunkCacheKey& key = trunk->key_;
  for (const Exit& e : trunk->exits_) {
    int start = -1;
    if (e.begin > 0) {
      const auto found = std::find(key.starts.begin(), key.starts.end(), e.begin);
      start = static_cast<int>(found - key.starts.begin());
      if (found == key.starts.end()) key.starts.push_back(e.begin);
    }
    trunk->start_of_exit_.push_back(start);
  }
  for (size_t d = 0; d < trunk->documents_.size(); ++d) {
    const auto& ids = trunk->documents_[d];
    if (static_cast<int64_t>(ids.size()) > max_tokens) {
      return InvalidArgument(fmt::format("document {} has {} tokens, more than the {} of a batch",
                                         d, ids.size(), max_tokens));
    }
    const uint64_t hash = HashIds(ids);
    trunk->index_.emplace(hash, static_cast<int64_t>(d));
    const uint64_t pair[2] = {key.data_hash, hash};
    key.data_hash = XXH3_64bits(pair, sizeof pair);
  }
  key.hidden = model.config().hidden;
  key.codec = trunk->options_.codec;
  trunk->MakeGroups();
  EW_RETURN_IF_ERROR(trunk->OpenCache());
  return trunk;
}

Status Trunk::OpenCache() {
  cache_.reset();
  if (options_.cache_path.empty() || key_.starts.empty()) return Status::Ok();
  TrunkCacheKey key = key_;
  key.base_hash = options_.base_hash;
  const auto mix = [&key](int64_t value) {
    const uint64_t pair[2] = {key.base_hash, static_cast<uint64_t>(value)};
    key.base_hash = XXH3_64bits(pair, sizeof pair);
  };
  if (options_.activation_bits > 0) mix(options_.activation_bits);
  if (options_.exact) key.base_hash = XXH3_64bits(&key.base_hash, sizeof key.base_hash);
  // (Bits of activations are fewer.)
  if (options_.split_tokens > 0) mix((int64_t{1} << 32) + options_.split_tokens);
  std::vector<int64_t> lengths;
  for (const auto& ids : documents_) lengths.push_back(static_cast<int64_t>(ids.size()));
  const auto open = options_.undecided ? &TrunkCache::Find : &TrunkCache::Open;
  EW_ASSIGN(cache_, open(options_.cache_path, key, lengths, options_.cache_max_bytes));
  return Status::Ok();
}

Status Trunk::SetMaxTokens(int64_t max_tokens, int64_t split_tokens) {
  if (max_tokens == max_tokens_ && split_tokens == options_.split_tokens) return Status::Ok();
  for (const auto& ids : documents_) {
    if (static_cast<int64_t>(ids.size()) > max_tokens) {
      return InvalidArgument(fmt::format("a document has {} tokens, more than the {} of a batch",
                                         ids.size(), max_tokens));
    }
  }
  max_tokens_ = max_tokens;
  options_.split_tokens = split_tokens;
  scratch_ = FloatBuffer();
  scratch_ = FloatBuffer(max_tokens * model_.config().hidden);
  MakeGroups();
  return OpenCache();
}

Status Trunk::Settle() {
  if (!options_.undecided) return Status::Ok();
  options_.undecided = false;
  return cache_ != nullptr ? Status::Ok() : OpenCache();
}

void Trunk::MakeGroups() {
  groups_.clear();
  group_of_.clear();
  int64_t tokens = 0;
  for (size_t d = 0; d < documents_.size(); ++d) {
    const auto n = static_cast<int64_t>(documents_[d].size());
    if (groups_.empty() || tokens + n > max_tokens_) {
      groups_.push_back({static_cast<int64_t>(d), 0});
      tokens = 0;
    }
    ++groups_.back().count;
    tokens += n;
    group_of_.push_back(static_cast<int64_t>(groups_.size()) - 1);
  }
}

bool Trunk::GroupComplete(const Group& group, int exit) const {
  for (int64_t d = group.first; d < group.first + group.count; ++d) {
    if (!cache_->Pinned(d)) continue;
    if (options_.mode == TrunkMode::kCumulative) {
      if (!cache_->Has(d, StartOf(exit))) return false;
      continue;
    }
    for (int s : start_of_exit_) {
      if (s >= 0 && !cache_->Has(d, s)) return false;
    }
  }
  return true;
}

Status Trunk::StoreRows(const Group& group, int exit, const float* hidden) {
  for (int64_t d = group.first; d < group.first + group.count; ++d) {
    if (cache_->Pinned(d)) EW_RETURN_IF_ERROR(cache_->Put(d, StartOf(exit), hidden));
    hidden +=
        static_cast<int64_t>(documents_[static_cast<size_t>(d)].size()) * model_.config().hidden;
  }
  return Status::Ok();
}

Status Trunk::MakeGroup(const Group& group, int exit, const model::LoraAdapter* lora) {
  TokenBatch batch;
  for (int64_t d = group.first; d < group.first + group.count; ++d) {
    AppendDocument(documents_[static_cast<size_t>(d)], &batch);
  }
  computed_tokens_ += batch.size();
  float* h = scratch_.data();
  const int64_t hidden = model_.config().hidden;
  if (options_.mode == TrunkMode::kCumulative) {
    // From the start below, when it is at hand for the whole group.
    bool below = exit > 0 && StartOf(exit - 1) >= 0;
    float* row = h;
    for (int64_t d = group.first; below && d < group.first + group.count; ++d) {
      EW_ASSIGN(below, cache_->Get(d, StartOf(exit - 1), row));
      row += static_cast<int64_t>(documents_[static_cast<size_t>(d)].size()) * hidden;
    }
    if (below) {
      const LayerRange between{exits_[static_cast<size_t>(exit - 1)].begin,
                               exits_[static_cast<size_t>(exit)].begin};
      EW_RETURN_IF_ERROR(
          pass_.Forward(batch, between, lora, h, options_.activation_bits, options_.exact));
    } else {
      EW_RETURN_IF_ERROR(RunTo(batch, exit, lora, h));
    }
    return StoreRows(group, exit, h);
  }
  EW_RETURN_IF_ERROR(pass_.Embed(batch, h));
  // The starts in ascending order; exits may share one.
  std::vector<int> order;
  for (int e = 0; e < static_cast<int>(exits_.size()); ++e) {
    if (HasTrunk(e)) order.push_back(e);
  }
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    return exits_[static_cast<size_t>(a)].begin < exits_[static_cast<size_t>(b)].begin;
  });
  int64_t at = 0;
  for (int e : order) {
    const int64_t begin = exits_[static_cast<size_t>(e)].begin;
    if (begin == at) continue;
    EW_RETURN_IF_ERROR(
        pass_.Forward(batch, {at, begin}, nullptr, h, options_.activation_bits, options_.exact));
    EW_RETURN_IF_ERROR(StoreRows(group, e, h));
    at = begin;
  }
  return Status::Ok();
}

Status Trunk::RunTo(const TokenBatch& batch, int exit, const model::LoraAdapter* lora,
                    float* hidden) {
  EW_RETURN_IF_ERROR(pass_.Embed(batch, hidden));
  return pass_.Forward(batch, {0, exits_[static_cast<size_t>(exit)].begin},
                       options_.mode == TrunkMode::kCumulative ? lora : nullptr, hidden,
                       options_.activation_bits, options_.exact);
}

Status Trunk::Prepare(int exit, const model::LoraAdapter* lora, const std::atomic<bool>* stop,
                      const TrunkProgressFn& progress) {
  if (cache_ == nullptr || (options_.mode == TrunkMode::kCumulative && !HasTrunk(exit))) {
    return Status::Ok();
  }
  TrunkProgress p;
  p.exit = exit;
  p.documents = static_cast<int64_t>(documents_.size());
  for (const auto& ids : documents_) p.tokens += static_cast<int64_t>(ids.size());
  bool made = false;
  for (const Group& group : groups_) {
    if (!GroupComplete(group, exit)) {
      if (stop != nullptr && stop->load()) {
        EW_RETURN_IF_ERROR(cache_->Sync());
        return {StatusCode::kInterrupted,
                fmt::format("stopped while caching trunk states, {} of {} documents done",
                            p.documents_done, p.documents)};
      }
      EW_RETURN_IF_ERROR(MakeGroup(group, exit, lora));
      made = true;
    }
    for (int64_t d = group.first; d < group.first + group.count; ++d) {
      p.tokens_done += static_cast<int64_t>(documents_[static_cast<size_t>(d)].size());
    }
    p.documents_done += group.count;
    if (made && progress) progress(p);
  }
  return made ? cache_->Sync() : Status::Ok();
}

bool Trunk::Complete() const {
  if (cache_ == nullptr) return false;
  for (int64_t d = 0; d < static_cast<int64_t>(documents_.size()); ++d) {
    if (!cache_->Pinned(d)) return false;
    for (int s : start_of_exit_) {
      if (s >= 0 && !cache_->Has(d, s)) return false;
    }
  }
  return true;
}

int64_t Trunk::FindDocument(std::span<const int32_t> ids) const {
  const auto [begin, end] = index_.equal_range(HashIds(ids));
  for (auto it = begin; it != end; ++it) {
    const auto& known = documents_[static_cast<size_t>(it->second)];
    if (std::equal(ids.begin(), ids.end(), known.begin(), known.end())) return it->second;
  }
  return -1;
}

Status Trunk::StartState(const TokenBatch& batch, int exit, const model::LoraAdapter* lora,
                         float* out) {
  const int64_t hidden = model_.config().hidden;
  if (cache_ == nullptr) {
    computed_tokens_ += batch.size();
    return RunTo(batch, exit, lora, out);
  }
  TokenBatch missing;
  std::vector<std::pair<int64_t, int64_t>> missing_ranges;
  for (const auto& [begin, end] : Documents(batch)) {
    const std::span<const int32_t> ids =
        std::span(batch.ids).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    const int64_t doc = FindDocument(ids);
    bool have = false;
    if (doc >= 0 && cache_->Pinned(doc)) {
      EW_ASSIGN(have, cache_->Get(doc, StartOf(exit), out + begin * hidden));
      if (!have) {
        // Never made, or damaged: again with its whole group, which gives the same bits.
        EW_RETURN_IF_ERROR(MakeGroup(
            groups_[static_cast<size_t>(group_of_[static_cast<size_t>(doc)])], exit, lora));
        EW_ASSIGN(have, cache_->Get(doc, StartOf(exit), out + begin * hidden));
      }
    }
    if (!have) {
      AppendDocument(ids, &missing);
      missing_ranges.emplace_back(begin, end);
    }
  }
  if (missing.size() == 0) return Status::Ok();
  computed_tokens_ += missing.size();
  EW_RETURN_IF_ERROR(RunTo(missing, exit, lora, scratch_.data()));
  const float* from = scratch_.data();
  for (const auto& [begin, end] : missing_ranges) {
    std::copy_n(from, (end - begin) * hidden, out + begin * hidden);
    from += (end - begin) * hidden;
  }
  return Status::Ok();
}

Status Trunk::InvalidateFrom(int exit) {
  if (cache_ == nullptr) return Status::Ok();
  for (size_t e = static_cast<size_t>(exit); e < exits_.size(); ++e) {
    if (start_of_exit_[e] >= 0) EW_RETURN_IF_ERROR(cache_->Invalidate(start_of_exit_[e]));
  }
  return Status::Ok();
}

}  // namespace edgewise::tune
