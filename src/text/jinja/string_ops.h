// String operations that methods and filters share. All keep the marks of their text.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"
#include "text/jinja/unicode.h"

namespace edgewise::text::jinja {

// Last occurrence or npos.
size_t RFindBytes(std::string_view haystack, std::string_view needle);

// The byte range of text[start:end], bounds in characters as Python takes them.
Result<ByteRange> CharacterRange(Runtime& rt, const Value& text, const std::optional<Value>& start,
                                 const std::optional<Value>& end);

// At most `max` splits; max < 0: all.
Result<Value> SplitAt(Runtime& rt, const Value& text, std::string_view separator, int64_t max);
Result<Value> RSplitAt(Runtime& rt, const Value& text, std::string_view separator, int64_t max);
Result<Value> SplitSpace(Runtime& rt, const Value& text, int64_t max);
Result<Value> RSplitSpace(Runtime& rt, const Value& text, int64_t max);
Result<std::vector<Value>> SplitLines(Runtime& rt, const Value& text, bool keep_ends);

// count < 0: all occurrences.
Result<Value> ReplaceText(Runtime& rt, const Value& text, std::string_view from, const Value& to,
                          int64_t count);

Result<Value> UpperText(Runtime& rt, const Value& text);
Result<Value> LowerText(Runtime& rt, const Value& text);
Result<Value> TitleText(Runtime& rt, const Value& text);
Result<Value> CapitalizeText(Runtime& rt, const Value& text);
Result<Value> FoldText(Runtime& rt, const Value& text);
Result<Value> SwapCaseText(Runtime& rt, const Value& text);

// align: '<', '>', '^' or '0' (right, behind a sign).
Result<Value> PadText(Runtime& rt, const Value& text, int64_t width, char align,
                      std::string_view fill);

}  // namespace edgewise::text::jinja
