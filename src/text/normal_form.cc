// Unicode normal forms with alignment. The text is cut where no character can combine with what
// comes before it; each part is decomposed, sorted and composed alone and stands for its source.
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <utility>

#include "text/normalizer.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

bool IsTrailingJamo(char32_t c) {
  return (c >= 0x1161 && c <= 0x1175) || (c >= 0x11A8 && c <= 0x11C2);
}

int CombiningClass(char32_t c) {
  return utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class;
}

class NormalFormStep final : public Normalizer {
 public:
  explicit NormalFormStep(NormalForm form)
      : compose_(form == NormalForm::kNfc || form == NormalForm::kNfkc),
        compat_(form == NormalForm::kNfkc || form == NormalForm::kNfkd) {}

  Status Apply(AlignedText* text, RegexScratch&) const override {
    const std::string& s = text->text();
    AlignedText out;
    bool changed = false;
    uint32_t done = 0;  // everything before is in `out`, once `changed`
    std::vector<int32_t> chars;
    std::string normal;
    for (size_t begin = 0; begin < s.size();) {
      size_t end = begin;
      const char32_t first = NextChar(s, &end);
      // No ASCII character changes, and none combines with the one before.
      if (first < 0x80 && (end == s.size() || static_cast<unsigned char>(s[end]) < 0x80)) {
        begin = end;
        continue;
      }
      chars.clear();
      Decompose(first, &chars);
      while (end < s.size()) {
        size_t next = end;
        const char32_t c = NextChar(s, &next);
        if (StartsPart(c)) break;
        Decompose(c, &chars);
        end = next;
      }
      Recompose(&chars, &normal);
      const std::string_view source = std::string_view(s).substr(begin, end - begin);
      if (normal != source) {
        if (!changed) out.Reserve(s.size() + 16);
        changed = true;
        const Range range{static_cast<uint32_t>(begin), static_cast<uint32_t>(end)};
        out.AppendFrom(*text, {done, range.begin});
        out.Append(normal, text->Source(range));
        done = range.end;
      }
      begin = end;
    }
    if (changed) {
      out.AppendFrom(*text, {done, static_cast<uint32_t>(s.size())});
      *text = std::move(out);
    }
    return Status::Ok();
  }

 private:
  // The longest decomposition of Unicode (U+FDFA) has 18 characters.
  using Decomposed = std::array<utf8proc_int32_t, 32>;

  size_t DecomposeChar(char32_t c, Decomposed* out) const {
    if (c >= 0x80) {
      int boundclass = UTF8PROC_BOUNDCLASS_START;
      const auto options =
          static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | (compat_ ? UTF8PROC_COMPAT : 0));
      const utf8proc_ssize_t n = utf8proc_decompose_char(
          static_cast<utf8proc_int32_t>(c), out->data(), out->size(), options, &boundclass);
      if (n > 0 && n <= static_cast<utf8proc_ssize_t>(out->size())) return n;
    }
    (*out)[0] = static_cast<utf8proc_int32_t>(c);
    return 1;
  }

  void Decompose(char32_t c, std::vector<int32_t>* out) const {
    Decomposed parts;
    const size_t n = DecomposeChar(c, &parts);
    out->insert(out->end(), parts.begin(), parts.begin() + n);
  }

  // Whether nothing before `c` can combine with it or be sorted behind it.
  bool StartsPart(char32_t c) const {
    if (c < 0x80) return true;
    Decomposed parts;
    DecomposeChar(c, &parts);
    const auto first = static_cast<char32_t>(parts[0]);
    return !IsMark(first) && !IsTrailingJamo(first) && CombiningClass(first) == 0;
  }

  // Canonical order, then composition. The sort is not utf8proc's, which takes quadratic time on a
  // long run of marks.
  void Recompose(std::vector<int32_t>* chars, std::string* out) const {
    auto begin = chars->begin();
    while (begin != chars->end()) {
      auto is_starter = [](int32_t c) { return CombiningClass(static_cast<char32_t>(c)) == 0; };
      begin = std::find_if_not(begin, chars->end(), is_starter);
      const auto end = std::find_if(begin, chars->end(), is_starter);
      if (end - begin > 1) {
        std::stable_sort(begin, end, [](int32_t a, int32_t b) {
          return CombiningClass(static_cast<char32_t>(a)) <
                 CombiningClass(static_cast<char32_t>(b));
        });
      }
      begin = end;
    }
    auto n = static_cast<utf8proc_ssize_t>(chars->size());
    if (compose_) {
      const utf8proc_ssize_t composed = utf8proc_normalize_utf32(
          chars->data(), n, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
      if (composed >= 0) n = composed;
    }
    out->clear();
    for (utf8proc_ssize_t i = 0; i < n; ++i) AppendUtf8(static_cast<char32_t>((*chars)[i]), out);
  }

  bool compose_;
  bool compat_;
};

}  // namespace

std::unique_ptr<const Normalizer> MakeNormalForm(NormalForm form) {
  return std::make_unique<NormalFormStep>(form);
}

}  // namespace edgewise::text
