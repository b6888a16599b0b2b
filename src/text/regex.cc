#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "text/regex_syntax.h"
#include "text/unicode.h"

namespace edgewise::text {
namespace {

constexpr size_t kMaxPatternBytes = size_t{64} << 10;
// Steps of the matcher for one match. The patterns of real tokenizers need a few per character.
constexpr uint32_t kMatchLimit = 50'000'000;
constexpr uint32_t kDepthLimit = 1'000'000;
constexpr uint32_t kHeapLimitKib = 64 << 10;
constexpr size_t kJitStackBytes = size_t{1} << 20;

std::string Pcre2Message(int code) {
  PCRE2_UCHAR8 buffer[256];
  if (pcre2_get_error_message(code, buffer, sizeof buffer) < 0)
    return fmt::format("error {}", code);
  return reinterpret_cast<const char*>(buffer);
}

pcre2_code* CompileRaw(std::string_view pattern, int* error, size_t* offset) {
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) return nullptr;
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  // MULTILINE: ^ and $ are about lines in Oniguruma.
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, error, offset, context);
  pcre2_compile_context_free(context);
  return code;
}

bool IsScript(std::string_view name) {
  if (!std::all_of(name.begin(), name.end(),
                   [](unsigned char c) { return std::isalpha(c) || c == '_'; })) {
    return false;
  }
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = CompileRaw(fmt::format("\\p{{sc:{}}}", name), &error, &offset);
  pcre2_code_free(code);
  return code != nullptr;
}

}  // namespace

struct RegexScratch::Buffers {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(size_t{32} << 10, kJitStackBytes, nullptr);

  Buffers() {
    if (context == nullptr) return;
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_depth_limit(context, kDepthLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    if (stack != nullptr) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Buffers() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
};

RegexScratch::RegexScratch() = default;
RegexScratch::~RegexScratch() = default;
RegexScratch::RegexScratch(RegexScratch&&) noexcept = default;
RegexScratch& RegexScratch::operator=(RegexScratch&&) noexcept = default;

struct Regex::Program {
  explicit Program(pcre2_code* compiled) : code(compiled) {}
  ~Program() { pcre2_code_free(code); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  pcre2_code* code;
};

Result<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return BadInput(fmt::format("regular expression of {} bytes: the limit is {}", pattern.size(),
                                kMaxPatternBytes));
  }
  EW_ASSIGN(const std::string translated, TranslateRegex(pattern, IsScript));
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = CompileRaw(translated, &error, &offset);
  if (code == nullptr) {
    return BadInput(fmt::format("regular expression '{}': {} (at byte {} of '{}')",
                                pattern.substr(0, 200), Pcre2Message(error), offset,
                                translated.substr(0, 400)));
  }
  // Where the system forbids executable memory this fails and the interpreter does the work.
  (void)pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  Regex out;
  out.program_ = std::make_shared<const Program>(code);
  return out;
}

Status Regex::FindAll(std::string_view text, RegexScratch& scratch, std::vector<Range>* out) const {
  if (!scratch.buffers_) scratch.buffers_ = std::make_unique<RegexScratch::Buffers>();
  const RegexScratch::Buffers& buffers = *scratch.buffers_;
  if (buffers.data == nullptr || buffers.context == nullptr) {
    return OutOfMemory("regular expression: no memory for matching");
  }
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const PCRE2_SIZE* ovector = pcre2_get_ovector_pointer(buffers.data);
  size_t pos = 0;
  size_t last_end = std::string_view::npos;
  while (pos <= text.size()) {
    int rc = pcre2_match(program_->code, subject, text.size(), pos, PCRE2_NO_UTF_CHECK,
                         buffers.data, buffers.context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
      rc = pcre2_match(program_->code, subject, text.size(), pos, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                       buffers.data, buffers.context);
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0) {
      return Unsupported(fmt::format(
          "the regular expression of the tokenizer cannot be matched at byte {} of a text of {} "
          "bytes: {}; split the text",
          pos, text.size(), Pcre2Message(rc)));
    }
    const size_t begin = ovector[0];
    const size_t end = ovector[1];
    if (begin > end) return Unsupported("regular expression: \\K in a lookaround");
    if (begin == end) {
      // An empty match directly behind the last one does not count.
      pos = end < text.size() ? end + Utf8Length(text[end]) : end + 1;
      if (begin == last_end) continue;
    } else {
      pos = end;
    }
    last_end = end;
    out->push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end)});
  }
  return Status::Ok();
}

}  // namespace edgewise::text
