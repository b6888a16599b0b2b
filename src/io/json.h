// JSON for small documents and output (nlohmann). Untrusted text is checked for size, depth and
// duplicate keys first: nlohmann alone silently drops duplicates and overflows the stack on dump.
// For large or many documents (tokenizer.json, JSONL data, safetensors headers) use simdjson.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/status.h"

namespace edgewise {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

struct JsonLimits {
  size_t max_bytes = size_t{16} << 20;
  int max_depth = 64;
};

// Error: byte position and reason. Duplicate keys are errors.
Result<Json> ParseJson(std::string_view text, JsonLimits limits = {});

// Reads and parses a file; errors name it.
Result<Json> ReadJsonFile(const std::string& path, JsonLimits limits = {});

// Never throws: invalid UTF-8 is replaced. indent < 0: one line.
std::string DumpJson(const Json& json, int indent = -1);
std::string DumpJson(const OrderedJson& json, int indent = -1);

}  // namespace edgewise
