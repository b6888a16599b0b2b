// Rows of an embedding that stays on disk.
#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "kernels/weight_rows.h"
#include "model/matrix_sections.h"
#include "model/weight_stream.h"

namespace edgewise::model {
namespace {

constexpr int64_t kBlock = StreamedFile::kAlignment;
// A section that is shorter is read at once, not once a tile.
constexpr int64_t kShortSection = int64_t{128} << 10;

}  // namespace

Status WeightStream::Gather(ExecContext& ctx, std::span<const int32_t> ids, float scale,
                            float* out) const {
  const StreamedMatrix& m = embedding_->from;
  const int64_t cols = weights_->embedding.cols;
  MatrixSections layout = SectionsOf(m.dtype, cols);
  MatrixSections to;                              // in a packed matrix of one tile
  kernels::PackedHeader one = embedding_header_;  // which has this header
  if (m.packed) {
    kernels::PackedFormat format = kernels::FormatOf(one);
    EW_ASSIGN(const kernels::PackedLayout from, kernels::ComputeLayout(format, 0));
    layout = SectionsOf(format, from);
    format.rows = kernels::kTileRows;
    EW_ASSIGN(const kernels::PackedLayout place, kernels::ComputeLayout(format, 0));
    to = SectionsOf(format, place);
    one.rows = static_cast<uint64_t>(format.rows);
    one.total = static_cast<uint64_t>(place.total);
  }
  const StreamedFile* file = FileOf(m);

  // Tokens by the rows that lie together.
  std::vector<std::pair<int32_t, int32_t>> order;  // first row of them, token
  for (size_t t = 0; t < ids.size(); ++t) {
    order.emplace_back(ids[t] / layout.rows * layout.rows, static_cast<int32_t>(t));
  }
  std::sort(order.begin(), order.end());
  std::vector<size_t> starts;
  for (size_t i = 0; i < order.size(); ++i) {
    if (i == 0 || order[i].first != order[i - 1].first) starts.push_back(i);
  }
  starts.push_back(order.size());

  // [bytes from `begin` on] -> the first of them, in `buffer`.
  const auto read = [&](int64_t begin, int64_t bytes, AlignedBuffer& buffer,
                        const std::byte** at) -> Status {
    const int64_t from = begin / kBlock * kBlock, needed = begin + bytes - from;
    const auto size = static_cast<size_t>(RoundUp(needed, kBlock));
    // (Of this size and more they are mapped, thus aligned to pages.)
    if (buffer.size() < size) buffer = AlignedBuffer(std::max(size, size_t{1} << 20));
    *at = buffer.as<std::byte>() + (begin - from);
    return file->Read(from, RoundUp(needed, kBlock), needed, buffer.as<std::byte>());
  };
  std::vector<AlignedBuffer> whole(layout.sections.size());
  std::vector<const std::byte*> whole_at(layout.sections.size(), nullptr);
  const int64_t tiles = CeilDiv(weights_->embedding.rows, layout.rows);
  for (size_t s = 0; s + 1 < layout.sections.size(); ++s) {
    const int64_t bytes = tiles * layout.sections[s].stride;
    if (bytes >= kShortSection) continue;
    EW_RETURN_IF_ERROR(read(m.offset + layout.sections[s].offset, bytes, whole[s], &whole_at[s]));
  }
  std::vector<AlignedBuffer> buffers(static_cast<size_t>(ctx.threads()));
  std::vector<std::vector<std::byte>> blobs(static_cast<size_t>(ctx.threads()));
  std::vector<Status> failed(static_cast<size_t>(ctx.threads()));
  ctx.pool().Run(std::ssize(starts) - 1, [&](int64_t i, int worker) {
    const auto w = static_cast<size_t>(worker);
    if (!failed[w].ok()) return;
    const size_t begin = starts[static_cast<size_t>(i)], end = starts[static_cast<size_t>(i) + 1];
    const int64_t tile = order[begin].first / layout.rows;
    const std::byte* at = nullptr;
    std::vector<std::byte>& blob = blobs[w];
    if (m.packed) blob.assign(one.total, std::byte{0});
    for (size_t s = 0; s < layout.sections.size(); ++s) {
      const Section& section = layout.sections[s];
      if (whole_at[s] != nullptr) {
        at = whole_at[s] + tile * section.stride;
      } else {
        failed[w] = read(m.offset + section.offset + tile * section.stride, section.stride,
                         buffers[w], &at);
        if (!failed[w].ok()) return;
      }
      if (m.packed) {
        std::memcpy(blob.data() + to.sections[s].offset, at, static_cast<size_t>(section.stride));
      }
    }
    kernels::PackedMatrix matrix;
    if (m.packed) {
      std::memcpy(blob.data(), &one, sizeof one);
      Result<kernels::PackedMatrix> made =
          kernels::PackedMatrix::FromBytes(blob, nullptr, kernels::Verify::kHeader);
      failed[w] = made.status();
      if (!made.ok()) return;
      matrix = *std::move(made);
    }
    const kernels::WeightRef rows =
        m.packed ? matrix.Ref() : kernels::WeightRef{1, cols, m.dtype, at, cols, nullptr};
    for (size_t k = begin; k < end; ++k) {
      float* to_row = out + int64_t{order[k].second} * cols;
      kernels::WeightRowsToF32(rows, ids[static_cast<size_t>(order[k].second)] - order[k].first, 1,
                               to_row);
      if (scale == 1.0f) continue;
      for (int64_t c = 0; c < cols; ++c) to_row[c] *= scale;
    }
  });
  for (Status& status : failed) EW_RETURN_IF_ERROR(std::move(status));
  return Status::Ok();
}

}  // namespace edgewise::model
