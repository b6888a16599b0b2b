// LM head and cross-entropy in one operation: only rows with a label are computed, in chunks of
// rows and blocks of vocabulary; the [tokens, vocab] matrix never exists. Backward in the same
// pass.
#pragma once

#include <cstdint>
#include <vector>

#include "exec/context.h"
#include "kernels/linear.h"

namespace edgewise::kernels {

// A head that is not in memory as a whole: its rows come and go in blocks.
class HeadBlockSource {
 public:
  virtual ~HeadBlockSource() = default;
  // Where the block that begins with row `first` ends: at a multiple of 128 rows, or the last row.
  virtual int64_t BlockEnd(int64_t first) const = 0;
  // Has the block that begins with `first` in memory, where HeadLossArgs::head says, until the next
  // call. False: it cannot be had; the loss is given up.
  virtual bool Hold(int64_t first) = 0;
};

struct HeadLossArgs {
  int64_t tokens = 0;
  const float* hidden = nullptr;  // [tokens, H], after the final norm
  WeightRef head;                 // [vocab, H]
  // Null: all of `head` is there. Else rows are read while they are held only; same bits.
  HeadBlockSource* source = nullptr;
  const int32_t* targets = nullptr;  // [tokens]; < 0: no label, the row costs nothing
  const float* weights = nullptr;    // [tokens] loss weight per row, or null for 1
  float softcap = 0;                 // > 0: logits become softcap tanh(logit / softcap)
  float grad_scale = 0;              // gradient of (grad_scale * sum of losses); 0: loss only
  float* dhidden = nullptr;          // [tokens, H], overwritten (rows without label: zero), or null
  float* dhead = nullptr;            // [vocab, H], added to, or null
  float* token_loss = nullptr;       // [tokens], 0 where there is no label, or null
  // Low-rank adapter on the head, logits += lora_scale (h A^T) B^T; r = 0: none.
  int64_t lora_r = 0;
  float lora_scale = 0;
  const float* lora_a = nullptr;  // [r, H]
  const float* lora_b = nullptr;  // [vocab, r]
  float* dlora_a = nullptr;       // added to, or null
  float* dlora_b = nullptr;
  // A packed head's logits are integer products (those of PackedForward). kInteger: its part in
  // dhidden too: the probabilities of every 128 entries, times the scales of their head rows, are
  // rounded to int8, so that each is off by at most 1/254 of the largest of them.
  BackwardMode backward = BackwardMode::kExact;
  // Blocks (a group of rows by 128 vocabulary entries) whose every probability is below this are
  // left out of the gradient (cf. Cut Cross-Entropy, arXiv 2411.09009): each logit gradient is then
  // off by less than |grad_scale| weight skip_below, and dhidden of a row by at most that row's
  // left-out probability mass times the longest row of the head. The loss stays exact. Which blocks
  // go depends on the rows of the group, so a row's gradient does, too. 0: exact.
  float skip_below = 0;
};

struct HeadLossResult {
  double loss_sum = 0;  // weighted sum over labelled rows
  double weight_sum = 0;
  int64_t labelled = 0;
  int64_t correct = 0;  // rows whose most likely token is the target
  // Of all blocks (a group of rows by 128 vocabulary entries): those in the gradient of the hidden
  // states, and those in the gradients of the head.
  int64_t blocks = 0, dhidden_blocks = 0, dhead_blocks = 0;
};

// Of a source that failed the result is without meaning.
HeadLossResult HeadLoss(ExecContext& ctx, const HeadLossArgs& args);
// The first rows of the blocks in the order in which HeadLoss holds them. It may leave out some
// that turn out not to matter.
std::vector<int64_t> HeadLossOrder(ExecContext& ctx, const HeadLossArgs& args);

// Log-probability of one target per row from given logits [rows, vocab] (double accumulation).
void LogSoftmaxAt(ExecContext& ctx, int64_t rows, int64_t vocab, const float* logits,
                  const int32_t* targets, double* logprob);

}  // namespace edgewise::kernels
