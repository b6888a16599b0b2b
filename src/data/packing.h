// Examples to batches: which documents share a stream, which streams a step sees, in what order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "data/dataset.h"
#include "tensor/token_batch.h"

namespace edgewise::data {

enum class Packing {
  kNone,     // one example is one row
  kInOrder,  // fill a row with the examples as they come
  kBestFit,  // longest first, each into the fullest row that still has room (best-fit decreasing)
};

// Rows of example indices; the lengths in a row add up to at most max_tokens, every example is in
// exactly one row. Packed or not, documents never see each other: boundaries and positions are kept
// in TokenBatch. Error: an example longer than max_tokens.
Result<std::vector<std::vector<int64_t>>> PackExamples(std::span<const Example> examples,
                                                       Packing packing, int64_t max_tokens);

struct BatchPlanOptions {
  int64_t batch_size = 1;  // rows of one micro-batch
  int64_t grad_accum = 1;  // micro-batches of one step
  bool shuffle = true;
  uint64_t seed = 42;
};

// Which rows every micro-batch holds. A pure function of (seed, epoch, index): resuming needs only
// the number of the step. Every pass has the same number of micro-batches; the last one of a pass
// holds what is left and may be smaller (nothing is dropped), and so may the last step.
class BatchPlan {
 public:
  BatchPlan(int64_t rows, const BatchPlanOptions& options);

  int64_t micro_batches_per_epoch() const { return micro_batches_; }
  int64_t steps_per_epoch() const { return steps_; }
  int64_t micro_batches_of_step(int64_t step) const;

  // Rows of micro-batch `index` in [0, micro_batches_per_epoch()) of a pass. Keeps the order of
  // the last pass asked for: not for several threads at once.
  std::vector<int64_t> Rows(int64_t epoch, int64_t index);
  // The same by step of the pass and micro-batch of the step.
  std::vector<int64_t> Rows(int64_t epoch, int64_t step, int64_t micro) {
    return Rows(epoch, step * options_.grad_accum + micro);
  }

 private:
  int64_t rows_;
  BatchPlanOptions options_;
  int64_t micro_batches_, steps_;
  int64_t epoch_ = -1;
  std::vector<int64_t> order_;
};

// Lays documents end to end. Each is a document of its own in the stream.
TokenBatch MakeBatch(std::span<const Example> examples, std::span<const int64_t> documents);

// Examples, their rows and the plan over them.
class BatchedDataset {
 public:
  static Result<BatchedDataset> Create(std::vector<Example> examples, Packing packing,
                                       int64_t max_tokens, const BatchPlanOptions& options);

  const std::vector<Example>& examples() const { return examples_; }
  const std::vector<std::vector<int64_t>>& rows() const { return rows_; }
  BatchPlan& plan() { return plan_; }
  int64_t max_batch_tokens() const { return max_batch_tokens_; }

  // Indices of the documents of a micro-batch, in stream order, and the stream itself.
  std::vector<int64_t> Documents(int64_t epoch, int64_t index);
  TokenBatch Batch(int64_t epoch, int64_t index);

 private:
  BatchedDataset(std::vector<Example> examples, std::vector<std::vector<int64_t>> rows,
                 const BatchPlanOptions& options);

  std::vector<Example> examples_;
  std::vector<std::vector<int64_t>> rows_;
  BatchPlan plan_;
  int64_t max_batch_tokens_ = 0;
};

}  // namespace edgewise::data
