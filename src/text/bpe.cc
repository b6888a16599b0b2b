#include "text/bpe.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "text/unicode.h"

namespace edgewise::text {
namespace {

constexpr std::string_view kMarker = "\xE2\x96\x81";  // U+2581, a space in SentencePiece
constexpr size_t kCacheSlots = size_t{1} << 14;
constexpr size_t kMaxCachedWord = 64;

using Candidate = ModelScratch::Candidate;
using Symbol = ModelScratch::Symbol;

// Turns std::push_heap's largest-first into smallest-first.
bool ComesLater(const Candidate& a, const Candidate& b) { return a.order > b.order; }

bool IsForbidden(const std::vector<bool>* forbidden, int32_t id) {
  return forbidden != nullptr && static_cast<size_t>(id) < forbidden->size() && (*forbidden)[id];
}

}  // namespace

std::string ByteTokenName(unsigned char byte) { return fmt::format("<0x{:02X}>", byte); }

MergeTable::MergeTable(size_t expected) {
  size_t slots = 16;
  while (slots * 3 / 4 < expected + 1) slots *= 2;
  keys_.assign(slots, kEmpty);
  merges_.resize(slots);
  mask_ = slots - 1;
}

void MergeTable::Insert(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = Key(left, right);
  size_t i = Slot(key);
  while (keys_[i] != kEmpty && keys_[i] != key) i = (i + 1) & mask_;
  keys_[i] = key;
  merges_[i] = merge;
}

BpeModel::BpeModel(Vocab vocab, BpeConfig config)
    : vocab_(std::move(vocab)), config_(std::move(config)) {
  affixes_ = !config_.continuing_subword_prefix.empty() || !config_.end_of_word_suffix.empty();
  has_fallback_ids_ = true;
  for (int b = 0; b < 256; ++b) {
    const auto byte = static_cast<unsigned char>(b);
    byte_ids_[b] = vocab_.Find(ByteToChar(byte)).value_or(-1);
    fallback_ids_[b] = vocab_.Find(ByteTokenName(byte)).value_or(-1);
    has_fallback_ids_ = has_fallback_ids_ && fallback_ids_[b] >= 0;
  }
  if (config_.unk_token) unk_id_ = vocab_.Find(*config_.unk_token);
}

Result<std::unique_ptr<const BpeModel>> BpeModel::Make(Vocab vocab, const Merges& merges,
                                                       BpeConfig config) {
  std::unique_ptr<BpeModel> model(new BpeModel(std::move(vocab), std::move(config)));
  model->merges_ = MergeTable(merges.size());
  const size_t prefix = model->config_.continuing_subword_prefix.size();
  std::vector<int32_t> merged;
  merged.reserve(merges.size());
  std::string joined;
  uint32_t rank = 0;
  for (const auto& [a, b] : merges) {
    const std::optional<int32_t> left = model->vocab_.Find(a);
    const std::optional<int32_t> right = model->vocab_.Find(b);
    joined.assign(a);
    if (b.size() >= prefix) joined.append(b.substr(prefix));
    const std::optional<int32_t> id = model->vocab_.Find(joined);
    if (!left || !right || !id || b.size() < prefix) {
      return BadInput(fmt::format("merge {} ('{}' and '{}'): '{}' is not in the vocabulary", rank,
                                  a, b,
                                  !left    ? a
                                  : !right ? b
                                           : std::string_view(joined)));
    }
    model->merges_.Insert(*left, *right, {rank++, *id});
    merged.push_back(*id);
  }
  model->FindMarkerSplits(merged);
  return std::unique_ptr<const BpeModel>(std::move(model));
}

void BpeModel::FindMarkerSplits(const std::vector<int32_t>& merged) {
  if (config_.byte_level || config_.ignore_merges || affixes_ || !vocab_.Find(kMarker)) return;
  // A character that is dropped would make neighbours of what lies on both sides of a cut.
  if (!unk_id_ && !(config_.byte_fallback && has_fallback_ids_)) return;
  for (int32_t id : merged) {
    const std::string_view piece = *vocab_.Piece(id);
    size_t lead = 0;
    while (piece.substr(lead, kMarker.size()) == kMarker) lead += kMarker.size();
    if (piece.find(kMarker, lead) != std::string_view::npos) return;
  }
  split_at_marker_ = true;
}

Status BpeModel::Tokenize(std::string_view word, const std::vector<bool>* forbidden,
                          ModelScratch& scratch, std::vector<WordToken>* out) const {
  if (!split_at_marker_) return TokenizeWord(word, forbidden, scratch, out);
  for (size_t begin = 0; begin < word.size();) {
    // A part: markers, then everything up to the next marker.
    size_t end = begin;
    while (word.compare(end, kMarker.size(), kMarker) == 0) end += kMarker.size();
    end = std::min(word.find(kMarker, end), word.size());
    const size_t first = out->size();
    EW_RETURN_IF_ERROR(TokenizeWord(word.substr(begin, end - begin), forbidden, scratch, out));
    for (size_t i = first; i < out->size(); ++i) {
      (*out)[i].begin += static_cast<uint32_t>(begin);
      (*out)[i].end += static_cast<uint32_t>(begin);
    }
    begin = end;
  }
  return Status::Ok();
}

Status BpeModel::TokenizeWord(std::string_view word, const std::vector<bool>* forbidden,
                              ModelScratch& scratch, std::vector<WordToken>* out) const {
  if (config_.ignore_merges) {
    const std::optional<int32_t> id = WholeWord(word, scratch);
    if (id && !IsForbidden(forbidden, *id)) {
      out->push_back({*id, 0, static_cast<uint32_t>(word.size())});
      return Status::Ok();
    }
  }
  ModelScratch::CachedWord* slot = nullptr;
  if (word.size() <= kMaxCachedWord) {
    if (scratch.cache.empty()) scratch.cache.resize(kCacheSlots);
    slot = &scratch.cache[std::hash<std::string_view>()(word) % kCacheSlots];
    if (slot->word == word && slot->allow_control == (forbidden == nullptr)) {
      out->insert(out->end(), slot->tokens.begin(), slot->tokens.end());
      return Status::Ok();
    }
  }
  EW_RETURN_IF_ERROR(InitSymbols(word, forbidden, scratch));
  MergeSymbols(forbidden, scratch);
  const size_t first = out->size();
  for (const Symbol& symbol : scratch.symbols) {
    if (symbol.id >= 0) out->push_back({symbol.id, symbol.begin, symbol.end});
  }
  if (slot != nullptr) {
    slot->word.assign(word);
    slot->allow_control = forbidden == nullptr;
    slot->tokens.assign(out->begin() + static_cast<ptrdiff_t>(first), out->end());
  }
  return Status::Ok();
}

std::optional<int32_t> BpeModel::WholeWord(std::string_view word, ModelScratch& scratch) const {
  if (!config_.byte_level) return vocab_.Find(word);
  scratch.key.clear();
  for (char c : word) scratch.key.append(ByteToChar(static_cast<unsigned char>(c)));
  return vocab_.Find(scratch.key);
}

Status BpeModel::InitSymbols(std::string_view word, const std::vector<bool>* forbidden,
                             ModelScratch& scratch) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  symbols.clear();
  auto add = [&](int32_t id, size_t begin, size_t end) {
    const auto n = static_cast<int32_t>(symbols.size());
    if (n > 0) symbols.back().next = n;
    symbols.push_back({id, n - 1, -1, static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
  };
  // A run of characters without a token, not yet written.
  size_t unk_begin = 0;
  size_t unk_end = 0;
  bool unk = false;
  auto flush_unk = [&] {
    if (unk) add(*unk_id_, unk_begin, unk_end);
    unk = false;
  };
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    pos += config_.byte_level ? 1 : Utf8Length(word[pos]);
    const auto byte = static_cast<unsigned char>(word[begin]);
    std::string_view spelt =
        config_.byte_level ? ByteToChar(byte) : word.substr(begin, pos - begin);
    if (affixes_) {
      scratch.key.assign(begin > 0 ? config_.continuing_subword_prefix : std::string());
      scratch.key.append(spelt);
      if (pos == word.size()) scratch.key.append(config_.end_of_word_suffix);
      spelt = scratch.key;
    }
    int32_t id = -1;
    if (!affixes_ && (config_.byte_level || byte < 0x80)) {
      // The characters that stand for ASCII bytes that are not printable lie above ASCII.
      const bool by_table = config_.byte_level || (byte > 0x20 && byte < 0x7F);
      id = by_table ? byte_ids_[byte] : vocab_.Find(spelt).value_or(-1);
    } else {
      id = vocab_.Find(spelt).value_or(-1);
    }
    if (id >= 0 && !IsForbidden(forbidden, id)) {
      flush_unk();
      add(id, begin, pos);
      continue;
    }
    if (config_.byte_fallback) {
      const bool all = has_fallback_ids_ || std::all_of(spelt.begin(), spelt.end(), [&](char c) {
                         return fallback_ids_[static_cast<unsigned char>(c)] >= 0;
                       });
      if (all) {
        for (size_t i = 0; i < spelt.size(); ++i) {
          const size_t at = std::min(begin + i, pos - 1);
          add(fallback_ids_[static_cast<unsigned char>(spelt[i])], at, at + 1);
        }
        continue;
      }
    }
    if (!config_.unk_token) continue;
    if (!unk_id_) {
      return BadInput(
          fmt::format("model.unk_token '{}' is not in the vocabulary, but the text has "
                      "the character '{}' that is not there either",
                      *config_.unk_token, spelt));
    }
    if (unk && config_.fuse_unk) {
      unk_end = pos;
      continue;
    }
    flush_unk();
    unk = true;
    unk_begin = begin;
    unk_end = pos;
  }
  flush_unk();
  return Status::Ok();
}

void BpeModel::MergeSymbols(const std::vector<bool>* forbidden, ModelScratch& scratch) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  std::vector<Candidate>& heap = scratch.heap;
  heap.clear();
  auto candidate = [&](int32_t pos) -> std::optional<Candidate> {
    const Symbol& left = symbols[pos];
    const MergeTable::Merge* merge = merges_.Find(left.id, symbols[left.next].id);
    if (merge == nullptr || IsForbidden(forbidden, merge->id)) return std::nullopt;
    return Candidate{uint64_t{merge->rank} << 32 | static_cast<uint32_t>(pos), merge->id};
  };
  auto push = [&](int32_t pos) {
    if (const std::optional<Candidate> c = candidate(pos)) {
      heap.push_back(*c);
      std::push_heap(heap.begin(), heap.end(), ComesLater);
    }
  };
  for (int32_t pos = 0; pos + 1 < static_cast<int32_t>(symbols.size()); ++pos) {
    if (const std::optional<Candidate> c = candidate(pos)) heap.push_back(*c);
  }
  std::make_heap(heap.begin(), heap.end(), ComesLater);
  while (!heap.empty()) {
    const Candidate top = heap.front();
    std::pop_heap(heap.begin(), heap.end(), ComesLater);
    heap.pop_back();
    const auto pos = static_cast<int32_t>(top.order & 0xFFFFFFFFu);
    Symbol& left = symbols[pos];
    // The pair may be gone: one of its halves merged with a neighbour.
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const MergeTable::Merge* merge = merges_.Find(left.id, right.id);
    if (merge == nullptr || merge->id != top.id) continue;
    left.id = top.id;
    left.end = right.end;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) {
      symbols[left.next].prev = pos;
      push(pos);
    }
    if (left.prev >= 0) push(left.prev);
  }
}

}  // namespace edgewise::text
