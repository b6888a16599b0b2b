// A file in memory, for building small files and for tests.
#pragma once

#include <vector>

#include "io/env.h"

namespace edgewise::formats {

class MemoryFile : public WritableFile {
 public:
  Status Append(std::span<const std::byte> bytes) override {
    data.insert(data.end(), bytes.begin(), bytes.end());
    return Status::Ok();
  }
  Status Sync() override { return Status::Ok(); }
  Status Close() override { return Status::Ok(); }

  std::vector<std::byte> data;
};

}  // namespace edgewise::formats
