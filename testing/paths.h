// Where tests find reference outputs and data. A missing folder is a skip that is said aloud.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

namespace edgewise::testing {

inline std::string DirFromEnv(const char* variable, const char* fallback) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0' ? value : fallback;
}
// Tests run in the repository root.
inline std::string GoldenDir() { return DirFromEnv("EDGEWISE_GOLDEN", "../shared/golden"); }
inline std::string DataDir() { return DirFromEnv("EDGEWISE_DATA", "../shared/data"); }
// Where tests write: memory where there is such a place, since they sync every file.
inline std::string TempRoot() {
  return std::filesystem::is_directory("/dev/shm")
             ? "/dev/shm"
             : std::filesystem::temp_directory_path().string();
}

}  // namespace edgewise::testing

#define EW_REQUIRE_DIR(dir)                                                         \
  if (!std::filesystem::is_directory(dir)) {                                        \
    GTEST_SKIP() << "no folder " << (dir) << ": set EDGEWISE_GOLDEN/EDGEWISE_DATA"; \
  }
