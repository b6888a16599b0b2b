// Cuts a template into tokens, with Jinja's white space rules as transformers sets them:
// trim_blocks (the newline after a block is dropped), lstrip_blocks (so is the indentation before
// it), one trailing newline of the template dropped, all newlines read as "\n".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/jinja/limits.h"

namespace edgewise::text::jinja {

enum class TokenKind : uint8_t {
  kData,        // text outside of tags
  kBlockBegin,  // {%
  kBlockEnd,    // %}
  kVariableBegin,
  kVariableEnd,
  kName,
  kInteger,
  kFloat,
  kString,
  kOperator,  // `text` is the operator
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  int line = 1;
  std::string text;     // data, name, operator, or a string with its escapes resolved
  int64_t integer = 0;  // kInteger
  double number = 0;    // kFloat

  bool Is(TokenKind k, std::string_view t) const { return kind == k && text == t; }
  bool IsName(std::string_view t) const { return Is(TokenKind::kName, t); }
  bool IsOp(std::string_view t) const { return Is(TokenKind::kOperator, t); }
};

// The last token is kEnd. Errors: syntax, or limit when the source is longer than allowed.
Result<std::vector<Token>> Tokenize(std::string_view source, const JinjaLimits& limits);

}  // namespace edgewise::text::jinja
