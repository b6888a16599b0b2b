// Cached inference with several exits: the base's own stream and the adapted stream of each exit go
// through a layer as rows of one call, so that its weights are read once.
//
// The layers are cut into segments at every place where a stream begins or an exit looks. A token
// that stops at a low exit leaves its states waiting below the next segment; they go through it
// together with the next token that needs it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "exec/context.h"
#include "model/decoder.h"
#include "model/exit_set.h"
#include "model/kv_cache.h"
#include "model/model.h"

namespace edgewise::model {

class ForkedDecoder {
 public:
  // The model and the exits must outlive the decoder.
  static Result<std::unique_ptr<ForkedDecoder>> Create(ExecContext& ctx, const Model& model,
                                                       const ExitSet& exits,
                                                       const DecoderOptions& options = {});
  ~ForkedDecoder();

  // Asked after each exit but the last, from below, with the logits [vocab] of that exit: true ends
  // the token there.
  using StopFn = std::function<bool(int exit, std::span<const float> logits)>;

  // Appends tokens; logits [exits computed, vocab] of the last one, valid until the next call.
  // Errors: as Decoder.
  Result<std::span<const float>> Prefill(std::span<const int32_t> tokens, const StopFn& stop = {});
  Result<std::span<const float>> Step(int32_t token, const StopFn& stop = {}) {
    return Prefill({&token, 1}, stop);
  }

  int exits() const { return exits_.size(); }
  int64_t vocab() const { return model_.config().vocab; }
  int64_t length() const { return length_; }
  int64_t max_context() const { return max_context_; }
  void Truncate(int64_t length);
  int64_t kv_bytes() const;
  int64_t scratch_bytes() const;  // working buffers
  // Layers run for the tokens so far, each row of each stream counted.
  int64_t layer_rows() const { return layer_rows_; }

 private:
  struct Segment;
  struct Buffers;
  ForkedDecoder(ExecContext& ctx, const Model& model, const ExitSet& exits);
  Status Plan(const DecoderOptions& options);
  Status RunSegment(Segment& segment);
  Status Flush(size_t index);
  // Hands the states that have left segment `index` to the streams of the one above.
  void PassOn(size_t index, int64_t rows);
  void KeepTapRows(const Segment& segment, int64_t rows);
  Status Logits(int first, int count);

  ExecContext& ctx_;
  const Model& model_;
  const ExitSet& exits_;
  std::vector<Segment> segments_;
  std::unique_ptr<Buffers> buffers_;
  int64_t length_ = 0, max_context_ = 0, chunk_ = 1, layer_rows_ = 0;
};

}  // namespace edgewise::model
