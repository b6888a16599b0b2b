#include "text/sentencepiece.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "text/unicode.h"

namespace edgewise::text {
namespace {

using Candidate = ModelScratch::Candidate;
using Symbol = ModelScratch::Symbol;

bool ComesLater(const Candidate& a, const Candidate& b) { return a.order > b.order; }

// Ascends as the score falls.
uint32_t ScoreOrder(float score) {
  const auto bits = std::bit_cast<uint32_t>(score == 0 ? 0.0f : score);
  const uint32_t ascending = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return ~ascending;
}

}  // namespace

SentencePieceModel::SentencePieceModel(Vocab vocab, std::vector<float> scores,
                                       std::optional<int32_t> unk)
    : vocab_(std::move(vocab)), scores_(std::move(scores)), unk_(unk) {
  for (int b = 0; b < 256; ++b) {
    const auto byte = static_cast<unsigned char>(b);
    byte_ids_[b] = vocab_.Find(ByteTokenName(byte)).value_or(-1);
  }
  for (int32_t id = 0; id < vocab_.id_limit(); ++id) {
    longest_ = std::max(longest_, vocab_.Piece(id).value_or("").size());
  }
}

Status SentencePieceModel::Tokenize(std::string_view word, const std::vector<bool>* forbidden,
                                    ModelScratch& scratch, std::vector<WordToken>* out) const {
  std::vector<Symbol>& symbols = scratch.symbols;
  std::vector<Candidate>& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  auto find = [&](uint32_t begin, uint32_t end) -> std::optional<int32_t> {
    if (end - begin > longest_) return std::nullopt;
    const std::optional<int32_t> id = vocab_.Find(word.substr(begin, end - begin));
    if (id && forbidden != nullptr && (*forbidden)[*id]) return std::nullopt;
    return id;
  };
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    pos += Utf8Length(word[pos]);
    const auto n = static_cast<int32_t>(symbols.size());
    if (n > 0) symbols.back().next = n;
    symbols.push_back({0, n - 1, -1, static_cast<uint32_t>(begin), static_cast<uint32_t>(pos)});
  }
  auto candidate = [&](int32_t pos) -> std::optional<Candidate> {
    const uint32_t begin = symbols[pos].begin;
    const uint32_t end = symbols[symbols[pos].next].end;
    const std::optional<int32_t> id = find(begin, end);
    if (!id) return std::nullopt;
    return Candidate{uint64_t{ScoreOrder(scores_[*id])} << 32 | static_cast<uint32_t>(pos),
                     static_cast<int32_t>(end - begin)};
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
    if (left.id < 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    // The pair may be gone: one of its halves grew.
    if (static_cast<int32_t>(right.end - left.begin) != top.id) continue;
    left.end = right.end;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) {
      symbols[left.next].prev = pos;
      push(pos);
    }
    if (left.prev >= 0) push(left.prev);
  }
  for (const Symbol& symbol : symbols) {
    if (symbol.id < 0) continue;
    if (const std::optional<int32_t> id = find(symbol.begin, symbol.end)) {
      out->push_back({*id, symbol.begin, symbol.end});
      continue;
    }
    for (uint32_t i = symbol.begin; i < symbol.end; ++i) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(word[i])];
      if (id >= 0) {
        out->push_back({id, i, i + 1});
      } else if (unk_) {
        out->push_back({*unk_, i, i + 1});
      }
    }
  }
  return Status::Ok();
}

}  // namespace edgewise::text
