// Weights that do not fit into memory: units (a layer, a block of the head's rows) are read from
// disk into memory by a thread of their own while other units compute, and dropped again. Of the
// embedding only the rows of a batch's tokens are read. What is kept is decided by the order of
// use, which is known: the unit whose next use lies farthest ahead goes first (Belady, IBM Systems
// Journal 1966), so with room for more than two units a backward pass finds the upper layers still
// there.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/reserved_memory.h"
#include "base/status.h"
#include "exec/context.h"
#include "io/streamed_file.h"
#include "kernels/packed/header.h"
#include "kernels/packed/packed_matrix.h"
#include "model/weight_table.h"

namespace edgewise::model {

struct StreamOptions {
  int64_t budget_bytes = 0;  // of weights in memory at a time; 0: weights are not streamed
  bool direct_io = false;    // leave the page cache out
  int64_t head_block_bytes = int64_t{8} << 20;    // the most of a block of the head
  const kernels::KernelTuning* tuning = nullptr;  // of packed matrices; null: none
};

// A matrix as it lies in a file.
struct StreamedMatrix {
  WeightId id;
  std::string path;
  int64_t offset = 0, bytes = 0;
  DType dtype = DType::kF32;  // dense only
  bool packed = false;
};

struct ReadRate {
  double gbps = 0;
  double processors = 0;
};

struct StreamStats {
  int64_t loads = 0, bytes = 0;  // units read, bytes of them
  double read_seconds = 0;       // of the reading thread
  double wait_seconds = 0;       // of the computation, for weights
};

class WeightStream {
 public:
  // `weights` receives the addresses of what is in memory and has to outlive the stream, as the
  // matrices' norms and biases do. Matrices of one layer are one unit. Error: files that cannot be
  // opened; kOutOfMemory: a budget that does not hold the largest unit (says what does).
  static Result<std::unique_ptr<WeightStream>> Create(std::vector<StreamedMatrix> matrices,
                                                      const ModelConfig& config,
                                                      ModelWeights* weights, StreamOptions options);
  ~WeightStream();
  WeightStream(const WeightStream&) = delete;
  WeightStream& operator=(const WeightStream&) = delete;

  // Units: layers by their numbers, then an embedding that is not gathered, then the head's blocks
  // of rows (a sparse head: one block; tied: that is the embedding, too).
  int64_t layer_unit(int64_t layer) const { return layer; }
  int64_t embedding_unit() const { return layers_; }
  int64_t head_unit(int64_t block) const { return head_begin_ + block; }
  int64_t head_blocks() const { return units() - head_begin_; }
  // The head's rows: those of block b are [b head_block_rows(), ...).
  int64_t head_block_rows() const { return head_block_rows_; }
  int64_t head_bytes() const;
  int64_t unit_bytes(int64_t unit) const { return units_[static_cast<size_t>(unit)].bytes; }
  int64_t units() const { return static_cast<int64_t>(units_.size()); }
  int64_t total_bytes() const;
  int64_t largest_unit_bytes() const;
  // What must fit where the head is wanted as a whole.
  int64_t least_bytes(bool whole_head) const;
  int64_t budget_bytes() const { return options_.budget_bytes; }

  // The units that will be acquired from now on, in this order; then, it is taken, `after` and the
  // units that follow it in the model (-1: the same again). What is expected is read ahead.
  void Expect(std::vector<int32_t> units, int64_t after = -1);
  // Waits until the unit is in memory and keeps it there until Release. Units that are held
  // together have to fit the budget. Error: reading failed, the file is damaged.
  Status Acquire(int64_t unit);
  void Release(int64_t unit);

  // Changes the budget from now on (kOutOfMemory as for Create).
  Status SetBudget(int64_t bytes);
  // Whether the embedding's rows can be read one by one (it is not sparse): then it is no unit.
  bool CanGather() const { return embedding_.has_value(); }
  // The rows `ids`, times `scale` -> out [ids.size(), hidden], fp32. Error: reading failed.
  Status Gather(ExecContext& ctx, std::span<const int32_t> ids, float scale, float* out) const;
  // The form of a packed matrix, from its header in the file (a read of one block). Error: reading
  // failed; kNotFound: the matrix is dense or not streamed.
  Result<kernels::PackedFormat> ReadFormat(const WeightId& id) const;
  int64_t matrix_bytes(const WeightId& id) const;  // 0: not streamed
  // How fast units (about `bytes` of them, spread over the model) are read by one thread, and what
  // share of its time it takes a processor for that: copying from the page cache, making pages.
  Result<ReadRate> MeasureRead(int64_t bytes) const;

  // Of the units in memory, those being read included.
  int64_t resident_bytes() const;
  StreamStats stats() const;
  void ResetStats();

 private:
  struct Piece {  // of a file, aligned, read in one go
    size_t file;
    int64_t offset, length, needed;  // of the file
    int64_t at;                      // in the unit's buffer
  };
  struct Matrix {
    StreamedMatrix from;
    int64_t at = 0;  // in the unit's buffer
    kernels::PackedMatrix packed;
  };
  enum class State : uint8_t { kAbsent, kLoading, kPresent };
  struct Unit {
    std::vector<Matrix> matrices;
    std::vector<Piece> pieces;
    int64_t bytes = 0;
    bool verified = false;
    bool in_place = false;  // a block of the head: its place is in region_, the pieces' `at` too
    State state = State::kAbsent;
    int held = 0;
    AlignedBuffer buffer;
  };

  WeightStream() = default;
  Result<size_t> OpenFile(const std::string& path);
  Status AddMatrix(StreamedMatrix matrix, Unit* unit);
  // Gathered where it can be, else a unit.
  Status AddEmbedding(StreamedMatrix matrix);
  // As the last units: blocks of rows; a sparse one is one unit like any other.
  Status AddHead(const StreamedMatrix& matrix, const ModelConfig& config);
  Status ReadInPlace(const Piece& piece);
  void Drop(Unit* unit);
  void LayOut(Unit* unit);
  void Loop();
  // The next unit to read and, when there is room, what has to go for it; -1: nothing to do.
  int64_t Choose(std::vector<int64_t>* evict) const;
  // Position in the order of use of the first use at or after `from`; of units beyond the order
  // that is known: past its end.
  int64_t NextUse(int64_t unit, int64_t from) const;
  int64_t UnitAt(int64_t position) const;
  Status Load(Unit* unit);
  Status Bind(Unit* unit);
  const StreamedMatrix* FindMatrix(const WeightId& id) const;
  const StreamedFile* FileOf(const StreamedMatrix& matrix) const;  // null: not opened yet
  Result<kernels::PackedHeader> ReadHeader(const StreamedMatrix& matrix) const;

  StreamOptions options_;
  ModelWeights* weights_ = nullptr;
  int64_t layers_ = 0;
  bool tied_ = false;
  int64_t head_begin_ = 0, head_block_rows_ = 0;
  std::vector<std::unique_ptr<StreamedFile>> files_;
  std::vector<Unit> units_;
  ReservedMemory region_;                        // the whole head's addresses
  std::optional<Matrix> head_;                   // that lies there
  std::optional<Matrix> embedding_;              // that is gathered; `packed` is empty
  kernels::PackedHeader embedding_header_ = {};  // of a packed one

  mutable std::mutex mutex_;
  std::condition_variable work_, ready_;
  std::vector<int32_t> order_;
  int64_t after_ = -1;
  int64_t cursor_ = 0;    // next position of the order to be acquired
  int64_t wanted_ = -1;   // unit that a caller waits for
  int64_t resident_ = 0;  // bytes, those being read included
  AlignedBuffer spare_;   // of a unit that went, for the next one
  Status failure_;
  bool stop_ = false;
  StreamStats stats_;
  std::thread thread_;
};

}  // namespace edgewise::model
