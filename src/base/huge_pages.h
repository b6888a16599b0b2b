// Large pages of memory: one fault where small ones take hundreds, which in a virtual machine may
// cost as much as reading what is put there.
#pragma once

#include <cstddef>

namespace edgewise {

inline constexpr size_t kHugePage = size_t{2} << 20;

// Asks for them within [data, data + bytes), where the system has any; no more than that range
// becomes resident.
void PreferHugePages(void* data, size_t bytes);

}  // namespace edgewise
