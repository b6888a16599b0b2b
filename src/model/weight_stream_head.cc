// The head in blocks of rows, which are never wanted at once.
//
// A head keeps its addresses: all of it has a place in region_, and a block's pages get memory when
// it is read. A page that two blocks share, the header and short sections (scales, where there is
// one a row) stay in memory.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "model/matrix_sections.h"
#include "model/weight_stream.h"

namespace edgewise::model {
namespace {

constexpr int64_t kBlock = StreamedFile::kAlignment;
// Buffers of this size and more are mapped, thus aligned to pages.
constexpr int64_t kSmallestBuffer = int64_t{1} << 20;
// Rows of a tile of the head's loss (kernels::HeadBlockSource).
constexpr int64_t kTile = 128;
// What kernels may read behind what they use.
constexpr int64_t kOverread = 64;
// A block's part of a section that is shorter than this is not worth a read of its own.
constexpr int64_t kShortPart = int64_t{32} << 10;
}  // namespace

const StreamedFile* WeightStream::FileOf(const StreamedMatrix& m) const {
  for (const auto& file : files_) {
    if (file->path() == m.path) return file.get();
  }
  return nullptr;
}

Result<kernels::PackedHeader> WeightStream::ReadHeader(const StreamedMatrix& m) const {
  const StreamedFile* file = FileOf(m);
  if (file == nullptr) return NotFound("the matrix has no file");
  AlignedBuffer buffer(static_cast<size_t>(kSmallestBuffer));
  const int64_t begin = m.offset / kBlock * kBlock;
  const int64_t needed = m.offset + static_cast<int64_t>(sizeof(kernels::PackedHeader)) - begin;
  EW_RETURN_IF_ERROR(file->Read(begin, RoundUp(needed, kBlock), needed, buffer.as<std::byte>()));
  kernels::PackedHeader header;
  std::memcpy(&header, buffer.as<std::byte>() + (m.offset - begin), sizeof header);
  return header;
}

Status WeightStream::AddEmbedding(StreamedMatrix matrix) {
  EW_RETURN_IF_ERROR(OpenFile(matrix.path).status());
  bool gathered = !matrix.packed;
  if (matrix.packed) {
    EW_ASSIGN(embedding_header_, ReadHeader(matrix));
    gathered = kernels::FormatOf(embedding_header_).structure == kernels::Structure::kDense;
  }
  if (gathered) {
    embedding_.emplace();
    embedding_->from = std::move(matrix);
    return Status::Ok();
  }
  // One unit; of a tied model it is the head as well.
  units_.emplace_back();
  return AddMatrix(std::move(matrix), &units_.back());
}

Status WeightStream::AddHead(const StreamedMatrix& matrix, const ModelConfig& config) {
  const int64_t vocab = config.vocab;
  head_block_rows_ = vocab;
  if (head_begin_ < units()) return Status::Ok();  // AddEmbedding made it
  EW_ASSIGN(const size_t file, OpenFile(matrix.path));
  MatrixSections layout = SectionsOf(matrix.dtype, config.hidden);
  if (matrix.packed) {
    EW_ASSIGN(const kernels::PackedHeader header, ReadHeader(matrix));
    const kernels::PackedFormat f = kernels::FormatOf(header);
    if (f.structure != kernels::Structure::kDense) {
      units_.emplace_back();
      return AddMatrix(matrix, &units_.back());
    }
    EW_ASSIGN(const kernels::PackedLayout sections, kernels::ComputeLayout(f, 0));
    if (sections.total != matrix.bytes || f.rows != vocab || f.cols != config.hidden) {
      return BadInput(fmt::format("{}: a matrix changed its shape while in use", matrix.path));
    }
    layout = SectionsOf(f, sections);
  }
  // Blocks of about the same size.
  const int64_t row = std::max<int64_t>(1, matrix.bytes / vocab);
  const int64_t most = std::max(kTile, options_.head_block_bytes / row / kTile * kTile);
  head_block_rows_ = RoundUp(CeilDiv(vocab, CeilDiv(vocab, most)), kTile);
  const int64_t blocks = CeilDiv(vocab, head_block_rows_);

  // Who owns which page: a block, or (kAlways) none.
  const int64_t page = ReservedMemory::Granularity();
  const int64_t begin = matrix.offset / page * page;
  const int64_t pages = CeilDiv(matrix.offset + matrix.bytes - begin, page);
  constexpr int32_t kAlways = -1, kNobody = -2;
  std::vector<int32_t> owner(static_cast<size_t>(pages), kNobody);
  // The header, which may begin at the end of a page.
  if (matrix.packed) owner[0] = kAlways;
  if (matrix.packed && pages > 1) owner[1] = kAlways;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t first = b * head_block_rows_, end = std::min(vocab, first + head_block_rows_);
    for (const Section& s : layout.sections) {
      const int64_t from = matrix.offset - begin + s.offset + first / layout.rows * s.stride;
      const int64_t bytes = CeilDiv(end - first, layout.rows) * s.stride;
      const bool is_short = head_block_rows_ / layout.rows * s.stride < kShortPart && blocks > 1;
      const int64_t last = std::min(pages, CeilDiv(from + bytes + kOverread, page));
      for (int64_t p = from / page; p < last; ++p) {
        int32_t& o = owner[static_cast<size_t>(p)];
        const auto own = static_cast<int32_t>(b);
        o = !is_short && (o == kNobody || o == own) ? own : kAlways;
      }
    }
  }
  EW_ASSIGN(region_, ReservedMemory::Reserve(pages * page));
  units_.resize(static_cast<size_t>(head_begin_ + blocks));
  for (int64_t p = 0; p < pages;) {
    const int32_t who = std::max(owner[static_cast<size_t>(p)], kAlways) == kAlways
                            ? kAlways
                            : owner[static_cast<size_t>(p)];
    int64_t end = p + 1;
    const auto same = [&](int64_t at) {
      const int32_t other = owner[static_cast<size_t>(at)];
      return who == kAlways ? other < 0 : other == who;
    };
    while (end < pages && same(end)) ++end;
    const int64_t offset = begin + p * page;
    Piece piece{file, offset, (end - p) * page, 0, p * page};
    piece.needed = std::min(piece.length, matrix.offset + matrix.bytes - offset);
    if (who == kAlways) {
      EW_RETURN_IF_ERROR(ReadInPlace(piece));
    } else {
      Unit& unit = units_[static_cast<size_t>(head_begin_ + who)];
      unit.in_place = true;
      unit.pieces.push_back(piece);
      unit.bytes += piece.length;
    }
    p = end;
  }
  head_.emplace();
  head_->from = matrix;
  head_->at = matrix.offset - begin;
  if (!matrix.packed) return Status::Ok();
  // Of a dense form the header says everything.
  EW_ASSIGN(head_->packed, kernels::PackedMatrix::FromBytes(
                               {region_.data() + head_->at, static_cast<size_t>(matrix.bytes)},
                               nullptr, kernels::Verify::kHeader)
                               .WithContext(matrix.path));
  if (options_.tuning != nullptr) options_.tuning->Apply(&head_->packed);
  return Status::Ok();
}

Status WeightStream::ReadInPlace(const Piece& p) {
  EW_RETURN_IF_ERROR(region_.Commit(p.at, p.length));
  return files_[p.file]->Read(p.offset, p.length, p.needed, region_.data() + p.at);
}

}  // namespace edgewise::model
