// Sizes and durations as people write and read them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace edgewise {

// "2GiB", "512M", "1.5 GB", "1048576" -> bytes. K/M/G/T and KiB/MiB/GiB/TiB are powers of 1024;
// KB/MB/GB/TB are powers of 1000. Error: what was read and an example.
Result<int64_t> ParseBytes(std::string_view text);

std::string FormatBytes(int64_t bytes);     // "1.62 GiB"
std::string FormatSeconds(double seconds);  // "14:03", "1:02:09", "0.8 s"
std::string FormatCount(double count);      // "135 M", "1.10 G"

}  // namespace edgewise
