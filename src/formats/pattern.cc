#include "formats/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include "formats/printable.h"

namespace edgewise::formats {
namespace {

constexpr size_t kMaxExpressionBytes = 4096;
constexpr uint32_t kMatchLimit = 100'000;
constexpr uint32_t kDepthLimit = 1'000;
constexpr uint32_t kHeapLimitKiB = 4'096;

struct MatchState {
  explicit MatchState(const pcre2_code* code)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)) {
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_depth_limit(context, kDepthLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
  }
  ~MatchState() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  MatchState(const MatchState&) = delete;
  MatchState& operator=(const MatchState&) = delete;

  int Match(const pcre2_code* code, std::string_view text) {
    return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                       PCRE2_ANCHORED, data, context);
  }
  pcre2_match_data* data;
  pcre2_match_context* context;
};

}  // namespace

Result<Pattern> Pattern::Compile(const std::string& expression) {
  if (expression.size() > kMaxExpressionBytes) {
    return BadInput(fmt::format("a regular expression of {} bytes, limit {}", expression.size(),
                                kMaxExpressionBytes));
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                    PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &error, &offset, nullptr);
  if (code == nullptr) {
    PCRE2_UCHAR message[256];
    pcre2_get_error_message(error, message, sizeof message);
    return BadInput(fmt::format("the regular expression {} is wrong at character {}: {}",
                                Printable(expression), offset,
                                reinterpret_cast<const char*>(message)));
  }
  Pattern pattern;
  pattern.code_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
  return pattern;
}

bool Pattern::MatchesStart(std::string_view text) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  return MatchState(code).Match(code, text) >= 0;
}

bool Pattern::FirstGroup(std::string_view text, std::string& group) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  MatchState state(code);
  if (state.Match(code, text) < 2) return false;
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(state.data);
  if (ends[2] == PCRE2_UNSET || ends[3] < ends[2]) return false;
  group = std::string(text.substr(ends[2], ends[3] - ends[2]));
  return true;
}

}  // namespace edgewise::formats
