#include "formats/checkpoint_manifest.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <new>

#include "formats/printable.h"
#include "io/json.h"

namespace edgewise::formats {
namespace {

constexpr std::string_view kFormat = "edgewise-checkpoint";
constexpr int kVersion = 1;

std::string HashOf(std::string_view text) {
  ContentHash hash;
  hash.Update(std::as_bytes(std::span(text.data(), text.size())));
  return hash.Hex();
}

bool IsCount(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_number_integer() && *it >= 0 && *it <= (int64_t{1} << 62);
}

bool IsText(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string();
}

}  // namespace

struct ContentHash::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

ContentHash::ContentHash() : state_(std::make_unique<State>()) {
  if (state_->xxh == nullptr) throw std::bad_alloc();
  XXH3_64bits_reset(state_->xxh);
}
ContentHash::~ContentHash() = default;

void ContentHash::Update(std::span<const std::byte> bytes) {
  XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size());
}

std::string ContentHash::Hex() const {
  return fmt::format("{:016x}", XXH3_64bits_digest(state_->xxh));
}

bool IsCheckpointFileName(std::string_view name) {
  if (name.empty() || name[0] == '.' || name.size() > 200) return false;
  return std::none_of(name.begin(), name.end(), [](char c) {
    return c == '/' || c == '\\' || static_cast<unsigned char>(c) < 0x20;
  });
}

std::string FormatManifest(const CheckpointInfo& info) {
  Json json = {{"format", kFormat},
               {"version", kVersion},
               {"step", info.step},
               {"files", Json::object()},
               {"metadata", info.metadata}};
  for (const auto& [name, file] : info.files) {
    json["files"][name] = {{"bytes", file.bytes}, {"xxh3", file.xxh3}};
  }
  json["checksum"] = HashOf(DumpJson(json));
  return DumpJson(json, 2) + "\n";
}

Result<CheckpointInfo> ParseManifest(std::string_view text) {
  EW_ASSIGN(Json json, edgewise::ParseJson(text));
  if (!json.is_object() || !IsText(json, "format") || json["format"] != kFormat) {
    return BadInput("not the manifest of a checkpoint");
  }
  if (!IsCount(json, "version") || json["version"] != kVersion) {
    return Unsupported("written by another version of edgewise");
  }
  if (!IsText(json, "checksum")) return BadInput("there is no checksum of the manifest itself");
  const std::string checksum = json["checksum"];
  json.erase("checksum");
  if (HashOf(DumpJson(json)) != checksum) return BadInput("the manifest is damaged");
  if (!IsCount(json, "step") || !json.contains("files") || !json["files"].is_object() ||
      !json.contains("metadata") || !json["metadata"].is_object()) {
    return BadInput("\"step\", \"files\" or \"metadata\" is missing");
  }
  CheckpointInfo info;
  info.step = json["step"];
  for (const auto& [name, file] : json["files"].items()) {
    if (!IsCheckpointFileName(name) || !file.is_object() || !IsCount(file, "bytes") ||
        !IsText(file, "xxh3")) {
      return BadInput(fmt::format("the entry of file {} is malformed", Printable(name)));
    }
    info.files.emplace(name, CheckpointFile{file["bytes"], file["xxh3"]});
  }
  for (const auto& [key, value] : json["metadata"].items()) {
    if (!value.is_string()) {
      return BadInput(fmt::format("metadata {} is not a string", Printable(key)));
    }
    info.metadata.emplace(key, value);
  }
  return info;
}

}  // namespace edgewise::formats
