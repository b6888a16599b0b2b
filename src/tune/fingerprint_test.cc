#include "tune/fingerprint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace edgewise::tune {
namespace {

namespace fs = std::filesystem;

TEST(Fingerprint, SeesContentsNamesAndBorders) {
  const fs::path dir = fs::temp_directory_path() / ("edgewise-fp-" + std::to_string(::getpid()));
  fs::create_directories(dir);
  const auto put = [&](const char* name, const char* text) { std::ofstream(dir / name) << text; };
  put("config.json", "{}");
  put("a.safetensors", "12");
  put("b.safetensors", "34");
  const std::string first = *FingerprintModel(dir.string());
  EXPECT_EQ(first.size(), 5u + 32u);
  put("README.md", "not part of it");
  EXPECT_EQ(*FingerprintModel(dir.string()), first);
  put("a.safetensors", "123");
  put("b.safetensors", "4");
  EXPECT_NE(*FingerprintModel(dir.string()), first);
  EXPECT_NE(*FingerprintModel((dir / "a.safetensors").string()), first);
  fs::remove_all(dir);
  EXPECT_FALSE(FingerprintModel(dir.string()).ok());
}

}  // namespace
}  // namespace edgewise::tune
