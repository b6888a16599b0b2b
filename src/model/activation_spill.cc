#include "model/activation_spill.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <span>

#include "base/checked.h"
#include "base/units.h"

namespace edgewise::model {
namespace {

// Buffers of this size and more are mapped, thus aligned to pages.
constexpr int64_t kSmallestBuffer = int64_t{1} << 20;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

int64_t Whole(int64_t bytes) { return RoundUp(bytes, ScratchFile::kAlignment); }

}  // namespace

int64_t ActivationSpill::SlotBytes(int64_t piece_bytes) {
  return std::max(kSmallestBuffer, kSlots * Whole(piece_bytes));
}

ActivationSpill::ActivationSpill(Env& env, std::string directory)
    : env_(env), directory_(std::move(directory)) {
  std::fill_n(in_slot_, kSlots, -1);
  thread_ = std::thread([this] { Loop(); });
}

ActivationSpill::~ActivationSpill() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  work_.notify_all();
  thread_.join();
}

Status ActivationSpill::Reserve(int64_t pieces, int64_t piece_bytes) {
  const int64_t bytes = pieces * Whole(piece_bytes);
  if (bytes <= file_bytes_) return Status::Ok();
  // What it takes now is free again first.
  file_.reset();
  file_bytes_ = 0;
  Result<std::unique_ptr<ScratchFile>> file = env_.NewScratchFile(directory_, bytes);
  if (!file.ok()) {
    return file.status().WithContext(fmt::format("{} of activations on disk", FormatBytes(bytes)));
  }
  file_ = std::move(*file);
  file_bytes_ = bytes;
  return Status::Ok();
}

Status ActivationSpill::Begin(std::vector<int32_t> uses, int64_t piece_bytes, std::byte* slots) {
  End();
  const auto count = static_cast<int64_t>(uses.size());
  EW_RETURN_IF_ERROR(Reserve(count, piece_bytes));
  const std::lock_guard lock(mutex_);
  uses_ = std::move(uses);
  pieces_.assign(static_cast<size_t>(count), {});
  for (int64_t i = 0; i < count; ++i) {
    pieces_[static_cast<size_t>(uses_[static_cast<size_t>(i)])].use = i;
  }
  for (int64_t p = std::max<int64_t>(0, count - kSlots); p < count; ++p) {
    Piece& piece = pieces_[static_cast<size_t>(p)];
    piece.stays = piece.use < kSlots;
  }
  slots_ = slots;
  piece_bytes_ = Whole(piece_bytes);
  failure_ = Status::Ok();
  return Status::Ok();
}

void ActivationSpill::End() {
  std::unique_lock lock(mutex_);
  pieces_.clear();
  uses_.clear();
  std::fill_n(in_slot_, kSlots, -1);
  filled_ = used_ = 0;
  ready_.wait(lock, [&] { return !busy_; });
  slots_ = nullptr;
}

int ActivationSpill::FreeSlot(int64_t use) const {
  int best = -1;
  int64_t farthest = use;
  for (int s = 0; s < kSlots; ++s) {
    if (in_slot_[s] < 0) return s;
    const Piece& piece = pieces_[static_cast<size_t>(in_slot_[s])];
    if (piece.state == State::kClean && piece.use > farthest) {
      best = s;
      farthest = piece.use;
    }
  }
  return best;
}

void ActivationSpill::Vacate(int slot) {
  if (in_slot_[slot] >= 0) {
    Piece& piece = pieces_[static_cast<size_t>(in_slot_[slot])];
    piece.state = State::kAway;
    piece.slot = -1;
  }
  in_slot_[slot] = -1;
}

Result<std::byte*> ActivationSpill::Fill(int64_t number) {
  std::unique_lock lock(mutex_);
  int slot = FreeSlot(-1);
  if (slot < 0) {
    const double start = Now();
    ready_.wait(lock, [&] { return (slot = FreeSlot(-1)) >= 0 || !failure_.ok(); });
    stats_.wait_seconds += Now() - start;
  }
  EW_RETURN_IF_ERROR(failure_);
  Vacate(slot);
  Piece& piece = pieces_[static_cast<size_t>(number)];
  piece.state = State::kHeld;
  piece.slot = slot;
  in_slot_[slot] = number;
  return SlotAt(slot);
}

void ActivationSpill::Filled(int64_t number, int64_t bytes) {
  {
    const std::lock_guard lock(mutex_);
    Piece& piece = pieces_[static_cast<size_t>(number)];
    piece.state = State::kFull;
    piece.bytes = Whole(bytes);
    ++filled_;
  }
  work_.notify_all();
}

Result<std::byte*> ActivationSpill::Take(int64_t number) {
  std::unique_lock lock(mutex_);
  Piece& piece = pieces_[static_cast<size_t>(number)];
  const auto there = [&] {
    return piece.state == State::kClean || (piece.state == State::kFull && piece.stays);
  };
  if (!there()) {
    const double start = Now();
    ready_.wait(lock, [&] { return there() || !failure_.ok(); });
    stats_.wait_seconds += Now() - start;
  }
  EW_RETURN_IF_ERROR(failure_);
  piece.state = State::kHeld;
  return SlotAt(piece.slot);
}

void ActivationSpill::Drop(int64_t number) {
  {
    const std::lock_guard lock(mutex_);
    Piece& piece = pieces_[static_cast<size_t>(number)];
    in_slot_[piece.slot] = -1;
    piece.slot = -1;
    piece.state = State::kDone;
    used_ = piece.use + 1;
  }
  work_.notify_all();
}

int64_t ActivationSpill::Choose(int* slot) {
  const auto count = static_cast<int64_t>(pieces_.size());
  for (int64_t p = 0; p < filled_; ++p) {
    const Piece& piece = pieces_[static_cast<size_t>(p)];
    if (piece.state != State::kFull || piece.stays) continue;
    *slot = piece.slot;
    return p;
  }
  if (filled_ < count) return -1;
  for (int64_t u = used_; u < count; ++u) {
    const int64_t p = uses_[static_cast<size_t>(u)];
    if (pieces_[static_cast<size_t>(p)].state != State::kAway) continue;
    *slot = FreeSlot(u);
    return *slot < 0 ? -1 : p;
  }
  return -1;
}

void ActivationSpill::Loop() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    int slot = -1;
    const int64_t number = failure_.ok() ? Choose(&slot) : -1;
    if (number < 0) {
      work_.wait(lock);
      continue;
    }
    Piece& piece = pieces_[static_cast<size_t>(number)];
    const bool writes = piece.state == State::kFull;
    if (!writes) {
      Vacate(slot);
      in_slot_[slot] = number;
      piece.slot = slot;
    }
    piece.state = writes ? State::kWriting : State::kReading;
    const std::span<std::byte> bytes(SlotAt(slot), static_cast<size_t>(piece.bytes));
    const int64_t offset = number * piece_bytes_;
    busy_ = true;
    lock.unlock();
    const double start = Now();
    const Status status = writes ? file_->Write(offset, bytes) : file_->Read(offset, bytes);
    const double seconds = Now() - start;
    lock.lock();
    busy_ = false;
    (writes ? stats_.bytes_written : stats_.bytes_read) += static_cast<int64_t>(bytes.size());
    (writes ? stats_.write_seconds : stats_.read_seconds) += seconds;
    // The pass may have ended meanwhile.
    if (number < static_cast<int64_t>(pieces_.size())) {
      pieces_[static_cast<size_t>(number)].state = State::kClean;
      if (!status.ok()) failure_ = status.WithContext("activations on disk");
    }
    ready_.notify_all();
  }
}

SpillStats ActivationSpill::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void ActivationSpill::ResetStats() {
  const std::lock_guard lock(mutex_);
  stats_ = {};
}

}  // namespace edgewise::model
