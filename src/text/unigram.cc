#include "text/unigram.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "text/unicode.h"

namespace edgewise::text {
namespace {

// An unknown character scores this much less than the worst piece.
constexpr double kUnkPenalty = 10.0;
// Finding pieces takes up to the longest one's length at every character.
constexpr size_t kMaxPieceBytes = 1024;

// The best way to cut the text up to some byte.
struct Best {
  double score = 0;
  int32_t begin = -1;  // of the last piece; -1: not reached
  int32_t id = -1;     // -1: an unknown character
};

// Narrows `range` (pieces equal in their first `depth` bytes) to those with `byte` next.
void Narrow(size_t depth, char byte, const std::string_view** first,
            const std::string_view** last) {
  const auto key = static_cast<unsigned char>(byte);
  auto at = [depth](std::string_view piece) {
    return depth < piece.size() ? static_cast<unsigned char>(piece[depth]) : -1;
  };
  *first =
      std::partition_point(*first, *last, [&](std::string_view piece) { return at(piece) < key; });
  *last =
      std::partition_point(*first, *last, [&](std::string_view piece) { return at(piece) <= key; });
}

}  // namespace

Result<std::unique_ptr<const TokenModel>> UnigramModel::Make(Vocab vocab,
                                                             std::vector<double> scores,
                                                             std::optional<int32_t> unk,
                                                             bool byte_fallback) {
  std::unique_ptr<UnigramModel> model(new UnigramModel());
  double lowest = std::numeric_limits<double>::infinity();
  for (double score : scores) {
    if (!std::isfinite(score)) return BadInput("vocab has a score that is not finite");
    lowest = std::min(lowest, score);
  }
  for (int32_t id = 0; id < vocab.id_limit(); ++id) {
    const std::string_view piece = vocab.Piece(id).value_or("");
    if (piece.empty()) continue;
    if (piece.size() > kMaxPieceBytes) {
      return Unsupported(fmt::format("vocab[{}] is a piece of {} bytes: the limit is {}", id,
                                     piece.size(), kMaxPieceBytes));
    }
    model->sorted_.push_back(piece);
  }
  std::sort(model->sorted_.begin(), model->sorted_.end());
  model->sorted_.erase(std::unique(model->sorted_.begin(), model->sorted_.end()),
                       model->sorted_.end());
  for (int b = 0; b < 256; ++b) {
    model->byte_ids_[b] = vocab.Find(ByteTokenName(static_cast<unsigned char>(b))).value_or(-1);
  }
  model->vocab_ = std::move(vocab);
  model->scores_ = std::move(scores);
  model->unk_ = unk;
  model->byte_fallback_ = byte_fallback;
  model->unk_score_ = lowest - kUnkPenalty;
  return std::unique_ptr<const TokenModel>(std::move(model));
}

Status UnigramModel::Tokenize(std::string_view word, const std::vector<bool>* forbidden,
                              ModelScratch&, std::vector<WordToken>* out) const {
  std::vector<Best> best(word.size() + 1);
  auto reach = [&](size_t begin, size_t end, double score, int32_t id) {
    const double total = best[begin].score + score;
    if (best[end].begin < 0 || total > best[end].score) {
      best[end] = {total, static_cast<int32_t>(begin), id};
    }
  };
  for (size_t begin = 0; begin < word.size();) {
    const size_t next = begin + Utf8Length(word[begin]);
    bool single = false;
    const std::string_view* first = sorted_.data();
    const std::string_view* last = first + sorted_.size();
    for (size_t end = begin; end < word.size() && first != last;) {
      Narrow(end - begin, word[end], &first, &last);
      ++end;
      // The piece that ends here, if there is one, comes before the longer ones.
      if (first == last || first->size() != end - begin) continue;
      const int32_t id = *vocab_.Find(*first);
      if (forbidden != nullptr && (*forbidden)[id]) continue;
      reach(begin, end, scores_[id], id);
      single = single || end == next;
    }
    if (!single) reach(begin, next, unk_score_, -1);
    begin = next;
  }

  // From the end back to the start; neighbouring unknown characters become one.
  std::vector<WordToken> path;
  for (auto end = static_cast<uint32_t>(word.size()); end > 0;) {
    const auto begin = static_cast<uint32_t>(best[end].begin);
    const int32_t id = best[end].id == unk_.value_or(-1) ? -1 : best[end].id;
    if (id < 0 && !path.empty() && path.back().id < 0) {
      path.back().begin = begin;
    } else {
      path.push_back({id, begin, end});
    }
    end = begin;
  }
  for (auto token = path.rbegin(); token != path.rend(); ++token) {
    if (token->id >= 0) {
      out->push_back(*token);
    } else {
      EW_RETURN_IF_ERROR(AppendUnknown(word, token->begin, token->end, forbidden, out));
    }
  }
  return Status::Ok();
}

Status UnigramModel::AppendUnknown(std::string_view word, uint32_t begin, uint32_t end,
                                   const std::vector<bool>* forbidden,
                                   std::vector<WordToken>* out) const {
  const std::string_view text = word.substr(begin, end - begin);
  const std::optional<int32_t> id = vocab_.Find(text);
  if (id && (forbidden == nullptr || !(*forbidden)[*id])) {
    out->push_back({*id, begin, end});
    return Status::Ok();
  }
  if (byte_fallback_ && std::all_of(text.begin(), text.end(), [&](char c) {
        return byte_ids_[static_cast<unsigned char>(c)] >= 0;
      })) {
    for (uint32_t i = begin; i < end; ++i) {
      out->push_back({byte_ids_[static_cast<unsigned char>(word[i])], i, i + 1});
    }
    return Status::Ok();
  }
  if (!unk_) {
    return BadInput(fmt::format("'{}' is not in the vocabulary and model.unk_id is not set",
                                text.substr(0, 64)));
  }
  out->push_back({*unk_, begin, end});
  return Status::Ok();
}

}  // namespace edgewise::text
