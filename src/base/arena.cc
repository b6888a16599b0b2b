#include "base/arena.h"

#include <algorithm>

namespace edgewise {

void* Arena::Allocate(size_t bytes) {
  constexpr size_t kAlign = AlignedBuffer::kAlignment;
  const size_t need = std::max<size_t>((bytes + kAlign - 1) / kAlign * kAlign, kAlign);
  while (current_ < blocks_.size() && used_ + need > blocks_[current_].size()) {
    ++current_;
    used_ = 0;
  }
  if (current_ == blocks_.size()) {
    blocks_.emplace_back(std::max(block_bytes_, need));
    reserved_ += blocks_.back().size();
    used_ = 0;
  }
  void* p = blocks_[current_].as<char>() + used_;
  used_ += need;
  return p;
}

void Arena::Release() {
  blocks_.clear();
  current_ = used_ = reserved_ = 0;
}

}  // namespace edgewise
