// The character map of a SentencePiece model: a double-array trie (darts-clone) from UTF-8 strings
// to offsets in a block of replacements that end in NUL.
#include <fmt/format.h>
#include <utf8proc.h>

#include <cstring>
#include <optional>
#include <utility>

#include "text/normalizer.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

// The library looks up whole grapheme clusters only when they are shorter than this.
constexpr size_t kMaxClusterBytes = 6;

class Precompiled final : public Normalizer {
 public:
  Precompiled(std::vector<uint32_t> trie, std::string replacements)
      : trie_(std::move(trie)), replacements_(std::move(replacements)) {}

  Status Apply(AlignedText* text, RegexScratch&) const override {
    const std::string& s = text->text();
    AlignedText out;
    out.Reserve(s.size());
    for (size_t begin = 0; begin < s.size();) {
      const size_t end = ClusterEnd(s, begin);
      const std::string_view cluster = std::string_view(s).substr(begin, end - begin);
      std::optional<std::string_view> whole;
      if (cluster.size() < kMaxClusterBytes) whole = Lookup(cluster);
      if (whole) {
        out.Append(*whole, Source(*text, begin, end));
      } else {
        for (size_t pos = begin; pos < end;) {
          const size_t next = pos + Utf8Length(s[pos]);
          const std::string_view c = std::string_view(s).substr(pos, next - pos);
          out.Append(Lookup(c).value_or(c), Source(*text, pos, next));
          pos = next;
        }
      }
      begin = end;
    }
    *text = std::move(out);
    return Status::Ok();
  }

 private:
  static TextSpan Source(const AlignedText& text, size_t begin, size_t end) {
    return text.Source({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
  }

  static size_t ClusterEnd(std::string_view s, size_t begin) {
    size_t pos = begin;
    auto previous = static_cast<utf8proc_int32_t>(NextChar(s, &pos));
    utf8proc_int32_t state = 0;
    while (pos < s.size()) {
      size_t next = pos;
      const auto c = static_cast<utf8proc_int32_t>(NextChar(s, &next));
      if (utf8proc_grapheme_break_stateful(previous, c, &state)) break;
      previous = c;
      pos = next;
    }
    return pos;
  }

  // The replacement of the shortest prefix of `key` that has one, as the library looks it up.
  std::optional<std::string_view> Lookup(std::string_view key) const {
    auto offset = [](uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); };
    size_t node = offset(trie_[0]);
    for (char c : key) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte == 0) break;
      node ^= byte;
      if (node >= trie_.size()) return std::nullopt;
      const uint32_t unit = trie_[node];
      if ((unit & (1u << 31 | 0xFF)) != byte) return std::nullopt;
      node ^= offset(unit);
      if (node >= trie_.size()) return std::nullopt;
      if ((unit >> 8 & 1) == 0) continue;
      const size_t at = trie_[node] & ~(1u << 31);
      if (at >= replacements_.size()) return std::nullopt;
      const size_t end = replacements_.find('\0', at);
      const std::string_view found =
          std::string_view(replacements_).substr(at, end == std::string::npos ? end : end - at);
      if (!IsValidUtf8(found)) return std::nullopt;
      return found;
    }
    return std::nullopt;
  }

  std::vector<uint32_t> trie_;
  std::string replacements_;
};

}  // namespace

Result<std::unique_ptr<const Normalizer>> MakePrecompiled(std::string charsmap) {
  uint32_t trie_bytes = 0;
  if (charsmap.size() < sizeof trie_bytes) return BadInput("the character map is too short");
  std::memcpy(&trie_bytes, charsmap.data(), sizeof trie_bytes);
  if (trie_bytes % 4 != 0 || trie_bytes == 0 || trie_bytes > charsmap.size() - sizeof trie_bytes) {
    return BadInput(fmt::format("the trie of {} bytes does not fit a character map of {} bytes",
                                trie_bytes, charsmap.size()));
  }
  std::vector<uint32_t> trie(trie_bytes / 4);
  std::memcpy(trie.data(), charsmap.data() + sizeof trie_bytes, trie_bytes);
  return std::unique_ptr<const Normalizer>(std::make_unique<Precompiled>(
      std::move(trie), charsmap.substr(sizeof trie_bytes + trie_bytes)));
}

}  // namespace edgewise::text
