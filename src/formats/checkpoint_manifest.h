// The manifest of a checkpoint and the checksums in it. Internal to the checkpoint container.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "formats/checkpoint.h"

namespace edgewise::formats {

inline constexpr std::string_view kManifestName = "manifest.json";

// XXH3-64 of bytes that come in pieces.
class ContentHash {
 public:
  ContentHash();
  ~ContentHash();
  ContentHash(const ContentHash&) = delete;
  ContentHash& operator=(const ContentHash&) = delete;
  void Update(std::span<const std::byte> bytes);
  std::string Hex() const;  // 16 digits

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Whether a name may be joined to the directory of a checkpoint.
bool IsCheckpointFileName(std::string_view name);

std::string FormatManifest(const CheckpointInfo& info);
// Everything but `path`. The manifest carries a checksum of itself.
Result<CheckpointInfo> ParseManifest(std::string_view text);

}  // namespace edgewise::formats
