// Env::NewScratchFile on a POSIX file system.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "io/env.h"

namespace edgewise {

Result<std::unique_ptr<ScratchFile>> OpenScratchFile(const std::string& directory, int64_t bytes);

}  // namespace edgewise
