// What can be said of streamed weights without holding them: their form, and how fast they come.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/checked.h"
#include "base/cpu_time.h"
#include "model/matrix_sections.h"
#include "model/weight_stream.h"

namespace edgewise::model {
namespace {

constexpr int64_t kBlock = StreamedFile::kAlignment;
// Buffers of this size and more are mapped, thus aligned to pages.
constexpr int64_t kSmallestBuffer = int64_t{1} << 20;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

const StreamedMatrix* WeightStream::FindMatrix(const WeightId& id) const {
  for (const auto* matrix : {&embedding_, &head_}) {
    if (*matrix && (*matrix)->from.id.role == id.role) return &(*matrix)->from;
  }
  for (const Unit& unit : units_) {
    for (const Matrix& m : unit.matrices) {
      if (m.from.id.role == id.role && m.from.id.layer == id.layer && m.from.id.kind == id.kind) {
        return &m.from;
      }
    }
  }
  return nullptr;
}

int64_t WeightStream::matrix_bytes(const WeightId& id) const {
  const StreamedMatrix* m = FindMatrix(id);
  return m != nullptr ? m->bytes : 0;
}

Result<kernels::PackedFormat> WeightStream::ReadFormat(const WeightId& id) const {
  const StreamedMatrix* m = FindMatrix(id);
  if (m == nullptr || !m->packed) return NotFound("the matrix is not packed");
  EW_ASSIGN(const kernels::PackedHeader header, ReadHeader(*m));
  return kernels::FormatOf(header);
}

Result<ReadRate> WeightStream::MeasureRead(int64_t bytes) const {
  const auto count = static_cast<int64_t>(units_.size());
  int64_t done = 0;
  double seconds = 0, busy = 0;
  // Units spread over the model: every second one, and from the middle on.
  for (int64_t i = 0; i < count && done < bytes; ++i) {
    const Unit& unit = units_[static_cast<size_t>((count / 2 + 2 * i) % count)];
    if (unit.bytes == 0) continue;
    const double start = Now(), began = ThreadCpuSeconds();
    // As when it is loaded: into pages that are not there yet.
    AlignedBuffer buffer(static_cast<size_t>(std::max(unit.bytes, kSmallestBuffer)));
    int64_t at = 0;
    for (const Piece& p : unit.pieces) {
      EW_RETURN_IF_ERROR(
          files_[p.file]->Read(p.offset, p.length, p.needed, buffer.as<std::byte>() + at));
      at += p.length;
    }
    seconds += Now() - start;
    busy += ThreadCpuSeconds() - began;
    done += unit.bytes;
  }
  if (done == 0) return ReadRate{};
  seconds = std::max(seconds, 1e-9);
  return ReadRate{static_cast<double>(done) * 1e-9 / seconds, std::min(busy / seconds, 1.0)};
}

}  // namespace edgewise::model
