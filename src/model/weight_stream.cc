#include "model/weight_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <new>

#include "base/checked.h"
#include "base/units.h"

namespace edgewise::model {
namespace {

constexpr int64_t kBlock = StreamedFile::kAlignment;
// Buffers of this size and more are mapped, thus aligned to pages.
constexpr int64_t kSmallestBuffer = int64_t{1} << 20;
// Units read ahead of the order that is known: a guess may be wrong.
constexpr int64_t kGuesses = 2;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t Down(int64_t n) { return n / kBlock * kBlock; }

Status BudgetTooSmall(int64_t budget, int64_t needed) {
  return OutOfMemory(fmt::format(
      "{} for weights that are read from disk as they are needed; the largest piece takes {}",
      FormatBytes(budget), FormatBytes(needed)));
}

}  // namespace

Result<std::unique_ptr<WeightStream>> WeightStream::Create(std::vector<StreamedMatrix> matrices,
                                                           const ModelConfig& config,
                                                           ModelWeights* weights,
                                                           StreamOptions options) {
  std::unique_ptr<WeightStream> s(new WeightStream);
  s->options_ = options;
  s->weights_ = weights;
  s->layers_ = config.num_layers();
  s->tied_ = config.tied;
  s->units_.resize(static_cast<size_t>(s->layers_));
  std::optional<StreamedMatrix> embedding, head;
  for (StreamedMatrix& m : matrices) {
    if (m.id.role == WeightRole::kEmbedding) {
      embedding = std::move(m);
    } else if (m.id.role == WeightRole::kHead) {
      head = std::move(m);
    } else {
      EW_RETURN_IF_ERROR(s->AddMatrix(m, &s->units_[static_cast<size_t>(m.id.layer)]));
    }
  }
  if (embedding) EW_RETURN_IF_ERROR(s->AddEmbedding(*embedding));
  if (config.tied) head = embedding;
  s->head_begin_ = s->units();
  if (config.tied && !s->CanGather()) s->head_begin_ = s->embedding_unit();
  if (head) EW_RETURN_IF_ERROR(s->AddHead(*head, config));
  for (Unit& unit : s->units_) {
    if (!unit.in_place) s->LayOut(&unit);
  }
  if (options.budget_bytes < s->largest_unit_bytes()) {
    return BudgetTooSmall(options.budget_bytes, s->largest_unit_bytes());
  }
  // Addresses of units_ no longer change: what points into it can be handed out.
  const auto set = [&](Matrix& m) {
    const std::vector<int64_t> shape = ShapeOf(config, m.from.id);
    MatrixOf(*weights, m.from.id) = {shape[0],
                                     shape[1],
                                     m.from.dtype,
                                     nullptr,
                                     m.from.packed ? 0 : shape[1],
                                     m.from.packed ? &m.packed : nullptr};
  };
  for (Unit& unit : s->units_) {
    for (Matrix& m : unit.matrices) set(m);
  }
  if (s->embedding_) set(*s->embedding_);
  if (s->head_) {
    set(*s->head_);
    if (!s->head_->from.packed) {
      MatrixOf(*weights, s->head_->from.id).data = s->region_.data() + s->head_->at;
    }
  }
  if (config.tied) weights->head = weights->embedding;
  s->thread_ = std::thread([stream = s.get()] { stream->Loop(); });
  return s;
}

WeightStream::~WeightStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<size_t> WeightStream::OpenFile(const std::string& path) {
  for (size_t file = 0; file < files_.size(); ++file) {
    if (files_[file]->path() == path) return file;
  }
  EW_ASSIGN(auto opened, StreamedFile::Open(path, options_.direct_io));
  files_.push_back(std::move(opened));
  return files_.size() - 1;
}

Status WeightStream::AddMatrix(StreamedMatrix matrix, Unit* unit) {
  EW_ASSIGN(const size_t file, OpenFile(matrix.path));
  const int64_t begin = Down(matrix.offset);
  const int64_t end = RoundUp(matrix.offset + matrix.bytes, kBlock);
  unit->pieces.push_back({file, begin, end - begin, matrix.offset + matrix.bytes - begin, 0});
  Matrix m;
  m.from = std::move(matrix);
  unit->matrices.push_back(std::move(m));
  return Status::Ok();
}

// Joins pieces that touch, and gives everything its place in the buffer.
void WeightStream::LayOut(Unit* unit) {
  std::vector<Piece>& pieces = unit->pieces;
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return a.file != b.file ? a.file < b.file : a.offset < b.offset;
  });
  std::vector<Piece> joined;
  for (const Piece& p : pieces) {
    Piece* last = joined.empty() ? nullptr : &joined.back();
    if (last != nullptr && last->file == p.file && p.offset <= last->offset + last->length) {
      last->needed = std::max(last->needed, p.offset + p.needed - last->offset);
      last->length = std::max(last->length, p.offset + p.length - last->offset);
    } else {
      joined.push_back(p);
    }
  }
  pieces = std::move(joined);
  int64_t at = 0;
  for (Piece& p : pieces) {
    p.at = at;
    at += p.length;
  }
  unit->bytes = unit->matrices.empty() ? 0 : std::max(at, kSmallestBuffer);
  for (Matrix& m : unit->matrices) {
    for (const Piece& p : pieces) {
      if (files_[p.file]->path() == m.from.path && p.offset <= m.from.offset &&
          m.from.offset < p.offset + p.length) {
        m.at = p.at + m.from.offset - p.offset;
      }
    }
  }
}

int64_t WeightStream::total_bytes() const {
  int64_t bytes = 0;
  for (const Unit& u : units_) bytes += u.bytes;
  return bytes;
}

int64_t WeightStream::largest_unit_bytes() const {
  int64_t bytes = 0;
  for (const Unit& u : units_) bytes = std::max(bytes, u.bytes);
  return bytes;
}

int64_t WeightStream::head_bytes() const {
  int64_t bytes = 0;
  for (int64_t b = 0; b < head_blocks(); ++b) bytes += unit_bytes(head_unit(b));
  return bytes;
}

int64_t WeightStream::least_bytes(bool whole_head) const {
  return whole_head ? std::max(largest_unit_bytes(), head_bytes()) : largest_unit_bytes();
}

int64_t WeightStream::resident_bytes() const {
  const std::lock_guard lock(mutex_);
  return resident_;
}

StreamStats WeightStream::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

Status WeightStream::SetBudget(int64_t bytes) {
  if (bytes < largest_unit_bytes()) return BudgetTooSmall(bytes, largest_unit_bytes());
  const std::lock_guard lock(mutex_);
  options_.budget_bytes = bytes;
  // What is too much goes when the next unit comes, and now, when nobody holds it.
  for (Unit& u : units_) {
    if (resident_ <= bytes) break;
    if (u.state != State::kPresent || u.held > 0) continue;
    Drop(&u);
  }
  spare_.Reset();
  work_.notify_all();
  return Status::Ok();
}

void WeightStream::ResetStats() {
  const std::lock_guard lock(mutex_);
  stats_ = {};
}

void WeightStream::Drop(Unit* unit) {
  unit->state = State::kAbsent;
  resident_ -= unit->bytes;
  unit->buffer.Reset();
  if (!unit->in_place) return;
  for (const Piece& p : unit->pieces) region_.Drop(p.at, p.length);
}

void WeightStream::Expect(std::vector<int32_t> units, int64_t after) {
  {
    const std::lock_guard lock(mutex_);
    order_ = std::move(units);
    after_ = after;
    cursor_ = 0;
  }
  work_.notify_all();
}

// Beyond the order that was told, it repeats, or goes on through the model.
int64_t WeightStream::UnitAt(int64_t position) const {
  const auto n = static_cast<int64_t>(order_.size());
  if (position < n) return order_[static_cast<size_t>(position)];
  if (n == 0) return -1;
  if (after_ < 0) return order_[static_cast<size_t>(position % n)];
  return (after_ + position - n) % units();
}

int64_t WeightStream::NextUse(int64_t unit, int64_t from) const {
  const int64_t end = static_cast<int64_t>(order_.size()) + std::max<int64_t>(units(), 1) +
                      static_cast<int64_t>(order_.size());
  for (int64_t p = from; p < end; ++p) {
    if (UnitAt(p) == unit) return p;
  }
  return end;
}

int64_t WeightStream::Choose(std::vector<int64_t>* evict) const {
  evict->clear();
  int64_t unit = wanted_, use = cursor_;
  if (unit >= 0 && units_[static_cast<size_t>(unit)].state != State::kAbsent) unit = -1;
  const auto known = static_cast<int64_t>(order_.size());
  for (int64_t p = cursor_; unit < 0 && p < known + kGuesses; ++p) {
    const int64_t u = UnitAt(p);
    if (u >= 0 && units_[static_cast<size_t>(u)].state == State::kAbsent &&
        units_[static_cast<size_t>(u)].bytes > 0) {
      unit = u;
      use = p;
    }
  }
  if (unit < 0) return -1;
  int64_t free = options_.budget_bytes - resident_;
  const int64_t bytes = units_[static_cast<size_t>(unit)].bytes;
  if (free >= bytes) return unit;
  // Farthest next use first; nothing that is used before the unit is.
  std::vector<std::pair<int64_t, int64_t>> candidates;
  for (int64_t u = 0; u < units(); ++u) {
    const Unit& other = units_[static_cast<size_t>(u)];
    if (other.state != State::kPresent || other.held > 0) continue;
    const int64_t next = NextUse(u, cursor_);
    if (unit == wanted_ || next > use) candidates.emplace_back(next, u);
  }
  std::sort(candidates.rbegin(), candidates.rend());
  for (const auto& [next, u] : candidates) {
    if (free >= bytes) break;
    evict->push_back(u);
    free += units_[static_cast<size_t>(u)].bytes;
  }
  return free >= bytes ? unit : -1;
}

void WeightStream::Loop() {
  std::unique_lock lock(mutex_);
  std::vector<int64_t> evict;
  while (!stop_) {
    const int64_t chosen = failure_.ok() ? Choose(&evict) : -1;
    if (chosen < 0) {
      work_.wait(lock);
      continue;
    }
    Unit& unit = units_[static_cast<size_t>(chosen)];
    for (int64_t u : evict) {
      Unit& gone = units_[static_cast<size_t>(u)];
      // Pages that are there already need not be made again for a unit of the same size.
      if (gone.bytes == unit.bytes && spare_.size() == 0 && !gone.in_place && !unit.in_place) {
        spare_ = std::move(gone.buffer);
      }
      Drop(&gone);
    }
    if (spare_.size() == static_cast<size_t>(unit.bytes)) unit.buffer = std::move(spare_);
    spare_.Reset();
    unit.state = State::kLoading;
    resident_ += unit.bytes;
    lock.unlock();
    const double start = Now();
    const Status status = Load(&unit);
    const double seconds = Now() - start;
    lock.lock();
    stats_.loads += 1;
    stats_.bytes += unit.bytes;
    stats_.read_seconds += seconds;
    if (status.ok()) {
      unit.state = State::kPresent;
    } else {
      Drop(&unit);
      failure_ = status;
    }
    ready_.notify_all();
  }
}

Status WeightStream::Load(Unit* unit) {
  if (unit->in_place) {
    for (const Piece& p : unit->pieces) EW_RETURN_IF_ERROR(ReadInPlace(p));
    return Status::Ok();
  }
  if (unit->buffer.size() == 0) {
    try {
      unit->buffer = AlignedBuffer(static_cast<size_t>(unit->bytes));
    } catch (const std::bad_alloc&) {
      return OutOfMemory(
          fmt::format("there is no memory for {} of weights", FormatBytes(unit->bytes)));
    }
  }
  auto* to = unit->buffer.as<std::byte>();
  for (const Piece& p : unit->pieces) {
    EW_RETURN_IF_ERROR(files_[p.file]->Read(p.offset, p.length, p.needed, to + p.at));
  }
  return Bind(unit);
}

// The unit is not used by anyone yet: its pointers may change.
Status WeightStream::Bind(Unit* unit) {
  for (Matrix& m : unit->matrices) {
    const auto* data = unit->buffer.as<std::byte>() + m.at;
    if (m.from.packed) {
      const auto read = [&](kernels::Verify verify) {
        return kernels::PackedMatrix::FromBytes({data, static_cast<size_t>(m.from.bytes)}, nullptr,
                                                verify)
            .WithContext(m.from.path);
      };
      // What the kernels rely on is checked once, sizes every time; and every time what would lead
      // them out of bounds, since the file may change while it is in use.
      EW_ASSIGN(m.packed, read(unit->verified ? kernels::Verify::kHeader : kernels::Verify::kFull));
      if (unit->verified && m.packed.format().structure == kernels::Structure::kUnstructured) {
        EW_ASSIGN(m.packed, read(kernels::Verify::kFull));
      }
      if (options_.tuning != nullptr) options_.tuning->Apply(&m.packed);
      const kernels::WeightRef& ref = MatrixOf(*weights_, m.from.id);
      if (m.packed.rows() != ref.rows || m.packed.cols() != ref.cols) {
        return BadInput(fmt::format("{}: a matrix changed its shape while in use", m.from.path));
      }
    } else {
      MatrixOf(*weights_, m.from.id).data = data;
    }
  }
  unit->verified = true;
  return Status::Ok();
}

Status WeightStream::Acquire(int64_t unit) {
  std::unique_lock lock(mutex_);
  Unit& u = units_[static_cast<size_t>(unit)];
  if (UnitAt(cursor_) == unit) {
    ++cursor_;
  } else {
    // Not as told: go on behind its next use, if there is one.
    const int64_t next = NextUse(unit, cursor_);
    if (next < static_cast<int64_t>(order_.size())) cursor_ = next + 1;
  }
  u.held += 1;
  int64_t held = 0;
  for (const Unit& other : units_) held += other.held > 0 ? other.bytes : 0;
  if (held > options_.budget_bytes) {
    u.held -= 1;
    return BudgetTooSmall(options_.budget_bytes, held);
  }
  if (u.bytes == 0 || u.state == State::kPresent) {
    lock.unlock();
    work_.notify_all();
    return Status::Ok();
  }
  const double start = Now();
  wanted_ = unit;
  work_.notify_all();
  ready_.wait(lock, [&] { return u.state == State::kPresent || !failure_.ok(); });
  wanted_ = -1;
  stats_.wait_seconds += Now() - start;
  if (u.state == State::kPresent) return Status::Ok();
  u.held -= 1;
  return failure_;
}

void WeightStream::Release(int64_t unit) {
  {
    const std::lock_guard lock(mutex_);
    units_[static_cast<size_t>(unit)].held -= 1;
  }
  work_.notify_all();
}

}  // namespace edgewise::model
