// The header of a safetensors file: JSON with one exact schema, then the arithmetic on it.
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "base/checked.h"
#include "formats/printable.h"
#include "formats/safetensors.h"
#include "formats/safetensors_dtype.h"

namespace edgewise::formats {
namespace {

namespace ondemand = simdjson::ondemand;
using Limits = SafetensorsLimits;

Status JsonError(std::string_view what, simdjson::error_code code) {
  return BadInput(fmt::format("header: {}: {}", what, simdjson::error_message(code)));
}

// simdjson values are read once and in order; `error` of a simdjson_result decides.
#define EW_JSON(decl, expr, what)                                   \
  auto EW_CONCAT(ew_json_, __LINE__) = (expr);                      \
  if (EW_CONCAT(ew_json_, __LINE__).error() != simdjson::SUCCESS) { \
    return JsonError(what, EW_CONCAT(ew_json_, __LINE__).error());  \
  }                                                                 \
  decl = std::move(EW_CONCAT(ew_json_, __LINE__)).value_unsafe()

// A number as the format wants it: digits only, no sign, fraction or exponent, at most 2^48.
Result<uint64_t> PlainInteger(ondemand::value value, const std::string& where) {
  std::string_view raw = value.raw_json_token();
  while (!raw.empty() &&
         (raw.back() == ' ' || raw.back() == '\n' || raw.back() == '\t' || raw.back() == '\r')) {
    raw.remove_suffix(1);
  }
  const bool digits = !raw.empty() && std::all_of(raw.begin(), raw.end(),
                                                  [](char c) { return c >= '0' && c <= '9'; });
  if (!digits) {
    return BadInput(
        fmt::format("{}: {} is not a plain non-negative integer", where, Printable(raw)));
  }
  EW_JSON(const uint64_t number, value.get_uint64(), where);
  if (number > Limits::kMaxNumber) {
    return BadInput(fmt::format("{}: {} is larger than 2^48", where, number));
  }
  return number;
}

Result<std::vector<uint64_t>> IntegerArray(ondemand::value value, const std::string& where,
                                           size_t max_count) {
  EW_JSON(ondemand::array array, value.get_array(), where);
  std::vector<uint64_t> numbers;
  for (auto element : array) {
    EW_JSON(ondemand::value item, std::move(element), where);
    if (numbers.size() == max_count) {
      return BadInput(fmt::format("{} has more than {} numbers", where, max_count));
    }
    EW_ASSIGN(const uint64_t number, PlainInteger(item, where));
    numbers.push_back(number);
  }
  return numbers;
}

Status CheckName(std::string_view name) {
  if (name.size() > Limits::kMaxNameBytes) {
    return BadInput(fmt::format("header: the tensor name {} has {} bytes, limit {}",
                                Printable(name), name.size(), Limits::kMaxNameBytes));
  }
  for (char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) {
      return BadInput(
          fmt::format("header: the tensor name {} holds a control character", Printable(name)));
    }
  }
  return Status::Ok();
}

// Bytes of a tensor of this type and shape; errors name the tensor.
Result<uint64_t> TensorBytes(const SafetensorsEntry& entry, int bits) {
  const std::optional<int64_t> elements = CheckedProduct(entry.shape);
  const std::optional<int64_t> total =
      elements ? CheckedMul<int64_t>(*elements, bits) : std::nullopt;
  if (!total) {
    return BadInput(fmt::format("tensor {}: the size of shape {} overflows 64 bits",
                                Printable(entry.name), ShapeText(entry.shape)));
  }
  if (*total % 8 != 0) {
    return BadInput(fmt::format("tensor {}: {} elements of {} are not a whole number of bytes",
                                Printable(entry.name), *elements, entry.dtype_name));
  }
  return static_cast<uint64_t>(*total / 8);
}

Result<SafetensorsEntry> ParseEntry(std::string_view name, ondemand::value value) {
  SafetensorsEntry entry;
  entry.name = name;
  const std::string where = fmt::format("tensor {}", Printable(name));
  EW_JSON(ondemand::object object, value.get_object(), where);
  bool has_dtype = false, has_shape = false, has_offsets = false;
  for (auto element : object) {
    EW_JSON(ondemand::field field, std::move(element), where);
    EW_JSON(const std::string_view key, field.unescaped_key(), where);
    const auto once = [&](bool& seen) {
      return std::exchange(seen, true)
                 ? BadInput(fmt::format("{}: duplicate key {}", where, Printable(key)))
                 : Status::Ok();
    };
    if (key == "dtype") {
      EW_RETURN_IF_ERROR(once(has_dtype));
      EW_JSON(const std::string_view dtype, field.value().get_string(), where + " dtype");
      entry.dtype_name = dtype;
    } else if (key == "shape") {
      EW_RETURN_IF_ERROR(once(has_shape));
      EW_ASSIGN(const auto dims, IntegerArray(field.value(), where + " shape", Limits::kMaxRank));
      entry.shape.assign(dims.begin(), dims.end());
    } else if (key == "data_offsets") {
      EW_RETURN_IF_ERROR(once(has_offsets));
      EW_ASSIGN(const auto offsets, IntegerArray(field.value(), where + " data_offsets", 2));
      if (offsets.size() != 2) {
        return BadInput(where + ": data_offsets must have two numbers");
      }
      entry.begin = offsets[0];
      entry.end = offsets[1];
    } else {
      return BadInput(fmt::format("{}: unknown key {}", where, Printable(key)));
    }
  }
  if (!has_dtype || !has_shape || !has_offsets) {
    return BadInput(fmt::format("{}: {} is missing", where,
                                !has_dtype ? "dtype" : (!has_shape ? "shape" : "data_offsets")));
  }
  const SafetensorsType* type = FindSafetensorsType(entry.dtype_name);
  if (type == nullptr) {
    return BadInput(fmt::format("{}: unknown dtype {}", where, Printable(entry.dtype_name)));
  }
  entry.dtype = type->dtype;
  if (entry.end < entry.begin) {
    return BadInput(fmt::format("{}: data_offsets [{}, {}] end before they begin", where,
                                entry.begin, entry.end));
  }
  EW_ASSIGN(const uint64_t bytes, TensorBytes(entry, type->bits));
  if (bytes != entry.end - entry.begin) {
    return BadInput(fmt::format("{}: {} {} needs {} bytes, data_offsets [{}, {}] give {}", where,
                                entry.dtype_name, ShapeText(entry.shape), bytes, entry.begin,
                                entry.end, entry.end - entry.begin));
  }
  return entry;
}

Result<std::map<std::string, std::string>> ParseMetadata(ondemand::value value) {
  std::map<std::string, std::string> metadata;
  EW_JSON(ondemand::object object, value.get_object(), "__metadata__");
  for (auto element : object) {
    EW_JSON(ondemand::field field, std::move(element), "__metadata__");
    EW_JSON(const std::string_view key, field.unescaped_key(), "__metadata__");
    const std::string name(key);
    const std::string where = fmt::format("__metadata__ {} (must be a string)", Printable(name));
    EW_JSON(const std::string_view text, field.value().get_string(), where);
    if (!metadata.emplace(name, text).second) {
      return BadInput(fmt::format("__metadata__: duplicate key {}", Printable(name)));
    }
  }
  return metadata;
}

Status ParseJson(std::string_view json, SafetensorsHeader& header) {
  const simdjson::padded_string padded(json);
  ondemand::parser parser;
  EW_JSON(ondemand::document document, parser.iterate(padded), "not valid JSON");
  EW_JSON(ondemand::object object, document.get_object(), "not a JSON object");
  std::unordered_set<std::string> names;
  bool has_metadata = false;
  for (auto element : object) {
    EW_JSON(ondemand::field field, std::move(element), "not valid JSON");
    EW_JSON(const std::string_view key, field.unescaped_key(), "a key");
    if (key == "__metadata__") {
      if (std::exchange(has_metadata, true)) return BadInput("header: duplicate key __metadata__");
      EW_ASSIGN(header.metadata, ParseMetadata(field.value()));
      continue;
    }
    EW_RETURN_IF_ERROR(CheckName(key));
    const auto [name, added] = names.emplace(key);
    if (!added) {
      return BadInput(
          fmt::format("header: duplicate key: tensor {} is listed twice", Printable(key)));
    }
    if (names.size() > Limits::kMaxTensors) {
      return BadInput(fmt::format("header: more than {} tensors", Limits::kMaxTensors));
    }
    EW_ASSIGN(SafetensorsEntry entry, ParseEntry(*name, field.value()));
    header.tensors.push_back(std::move(entry));
  }
  // The location is out of bounds exactly when every token of the text has been read.
  if (document.current_location().error() != simdjson::OUT_OF_BOUNDS) {
    return BadInput("header: more text after the JSON object");
  }
  return Status::Ok();
}

// No holes, no overlaps, nothing after the last tensor: each byte belongs to exactly one tensor.
Status CheckTiling(std::vector<SafetensorsEntry>& tensors, uint64_t buffer_bytes) {
  std::sort(tensors.begin(), tensors.end(),
            [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  uint64_t end = 0;
  for (const SafetensorsEntry& entry : tensors) {
    if (entry.begin != end) {
      return BadInput(
          fmt::format("tensor {}: begins at byte {} of the buffer, but {}; tensors "
                      "must follow each other without holes or overlaps",
                      Printable(entry.name), entry.begin,
                      end == 0 ? std::string("the first byte belongs to no tensor")
                               : fmt::format("the one before it ends at {}", end)));
    }
    end = entry.end;
  }
  if (end != buffer_bytes) {
    return BadInput(fmt::format(
        "the tensors end at byte {} of the buffer, but the file holds {} bytes of it: it was {}",
        end, buffer_bytes, end > buffer_bytes ? "cut short" : "added to"));
  }
  return Status::Ok();
}

}  // namespace

Result<SafetensorsHeader> ParseSafetensors(std::span<const std::byte> file) {
  constexpr uint64_t kPrefix = 8;
  if (file.size() < kPrefix) {
    return BadInput(fmt::format("{} bytes are too few for a safetensors file", file.size()));
  }
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kPrefix; ++i) {
    header_bytes |= static_cast<uint64_t>(file[i]) << (8 * i);
  }
  if (header_bytes > Limits::kMaxHeaderBytes) {
    return BadInput(fmt::format("header: a length of {} bytes, limit {}; not a safetensors file?",
                                header_bytes, Limits::kMaxHeaderBytes));
  }
  if (header_bytes > file.size() - kPrefix) {
    return BadInput(fmt::format("header: a length of {} bytes in a file of {}: it was cut short",
                                header_bytes, file.size()));
  }
  const std::string_view json(reinterpret_cast<const char*>(file.data()) + kPrefix,
                              static_cast<size_t>(header_bytes));
  if (json.empty() || json.front() != '{') {
    return BadInput("header: does not start with '{'; not a safetensors file?");
  }
  SafetensorsHeader header;
  header.buffer_offset = kPrefix + header_bytes;
  EW_RETURN_IF_ERROR(ParseJson(json, header));
  EW_RETURN_IF_ERROR(CheckTiling(header.tensors, file.size() - header.buffer_offset));
  return header;
}

#undef EW_JSON

}  // namespace edgewise::formats
