// What a forward pass keeps and memory has no room for. Pieces (one layer of one micro-batch) are
// filled in a few slots, written to a temporary file by a thread of its own while the next ones are
// computed, and read back ahead of the backward pass. Pieces that lie in a slot until they are used
// are never written.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "io/env.h"
#include "plan/workload.h"

namespace edgewise::model {

struct SpillStats {
  int64_t bytes_written = 0, bytes_read = 0;
  double write_seconds = 0, read_seconds = 0;  // of the thread
  double wait_seconds = 0;                     // of the computation, for slots and pieces
};

class ActivationSpill {
 public:
  // One is computed while another is on its way.
  static constexpr int64_t kSlots = plan::kSpillSlots;
  // Of all slots together, for pieces of up to `piece_bytes`.
  static int64_t SlotBytes(int64_t piece_bytes);

  // `directory` exists; the file there has no name. `env` has to outlive this.
  ActivationSpill(Env& env, std::string directory);
  ~ActivationSpill();
  ActivationSpill(const ActivationSpill&) = delete;
  ActivationSpill& operator=(const ActivationSpill&) = delete;

  // Room on the disk for that many pieces. Error: there is not.
  Status Reserve(int64_t pieces, int64_t piece_bytes);

  // A pass with pieces 0, 1, ... `uses.size()` - 1 of up to `piece_bytes`, which are filled in this
  // order and used in the order of `uses`, every one once. `slots` (SlotBytes, aligned to pages)
  // belongs to the pass until End. Error: as Reserve.
  Status Begin(std::vector<int32_t> uses, int64_t piece_bytes, std::byte* slots);
  // Forward: memory for the next piece, then that it is full (its first `bytes` count). Waits for
  // earlier ones to be written. Error: writing failed.
  Result<std::byte*> Fill(int64_t piece);
  void Filled(int64_t piece, int64_t bytes);
  // Backward, when all are filled: waits until the piece is there. Error: writing or reading
  // failed.
  Result<std::byte*> Take(int64_t piece);
  void Drop(int64_t piece);
  // The pass is over or given up; when this returns nobody touches the slots.
  void End();

  SpillStats stats() const;
  void ResetStats();

 private:
  enum class State : uint8_t { kEmpty, kHeld, kFull, kWriting, kClean, kAway, kReading, kDone };
  struct Piece {
    State state = State::kEmpty;
    bool stays = false;  // in its slot, until it is used
    int slot = -1;
    int64_t use = 0;  // position in the order of use
    int64_t bytes = 0;
  };

  void Loop();
  // One operation of the thread: writing, else reading ahead; -1: nothing to do.
  int64_t Choose(int* slot);
  // A slot that is free or whose piece is on the disk, too, and not used before `use`; -1: none.
  int FreeSlot(int64_t use) const;
  void Vacate(int slot);
  std::byte* SlotAt(int slot) const { return slots_ + slot * piece_bytes_; }

  Env& env_;
  const std::string directory_;
  std::unique_ptr<ScratchFile> file_;
  int64_t file_bytes_ = 0;

  mutable std::mutex mutex_;
  std::condition_variable work_, ready_;
  std::vector<Piece> pieces_;
  std::vector<int32_t> uses_;
  std::byte* slots_ = nullptr;
  int64_t piece_bytes_ = 0;
  int64_t in_slot_[kSlots];  // -1: nothing
  int64_t filled_ = 0, used_ = 0;
  bool busy_ = false, stop_ = false;
  Status failure_;
  SpillStats stats_;
  std::thread thread_;
};

}  // namespace edgewise::model
