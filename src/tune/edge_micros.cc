// Training passes of the windows under way.
#include <fmt/format.h>

#include <chrono>

#include "tune/edge_method.h"

namespace edgewise::tune {

using Clock = std::chrono::steady_clock;

Result<LossSum> EdgeMethod::Micro(const TokenBatch& batch, const MicroContext& context) {
  const TokenBatch* one = &batch;
  std::vector<LossSum> losses;
  EW_RETURN_IF_ERROR(Micros({&one, 1}, {&context.micro, 1}, context, &losses));
  return losses[0];
}

Status EdgeMethod::Micros(std::span<const TokenBatch* const> batches,
                          std::span<const int64_t> micros, MicroContext context,
                          std::vector<LossSum>* losses) {
  if (batches.empty()) return InvalidArgument("no micro-batch");
  if (static_cast<int64_t>(batches.size()) > group_) {
    return InvalidArgument(
        fmt::format("{} micro-batches at a time, planned for {}", batches.size(), group_));
  }
  // Of one micro-batch: with a teacher there are no groups.
  if (teacher_.weight > 0) {
    const Clock::time_point begin = Clock::now();
    EW_RETURN_IF_ERROR(RunTeacher(*batches[0]));
    times_.teacher += std::chrono::duration<double>(Clock::now() - begin).count();
  }
  const std::vector<int> exits = ExitsOfStep();
  const auto windows = static_cast<double>(exits.size());
  losses->assign(batches.size(), {});
  for (int exit : exits) {
    model::PassOptions o = WindowPass(exit, /*train=*/true);
    const Clock::time_point begin = Clock::now();
    std::vector<model::TrainingPass::GroupRow> rows;
    for (size_t i = 0; i < batches.size(); ++i) {
      // Layers differ from window to window, and with them what is drawn.
      const uint64_t key =
          (static_cast<uint64_t>(context.step) << 20) | static_cast<uint64_t>(micros[i]);
      EW_ASSIGN(const float* start, Start(*batches[i], exit, static_cast<int64_t>(i)));
      rows.push_back({batches[i], start, key, key});
    }
    times_.start += std::chrono::duration<double>(Clock::now() - begin).count();
    o.start_hidden = rows[0].start_hidden;
    o.phases = &times_.pass;
    o.grad_scale = context.grad_scale / windows;
    o.dropout_seed = context.seed;
    o.backward.seed = context.seed;
    EW_ASSIGN(const auto results, pass_.RunGroup(rows, o));
    for (size_t i = 0; i < results.size(); ++i) {
      const kernels::HeadLossResult& r = results[i];
      head_blocks_.blocks += r.blocks;
      head_blocks_.dhidden_blocks += r.dhidden_blocks;
      head_blocks_.dhead_blocks += r.dhead_blocks;
      LossSum& loss = (*losses)[i];
      loss.loss_sum += r.loss_sum / windows;
      loss.tokens = r.labelled;
      loss.correct = r.correct;  // of the last one
    }
  }
  return Status::Ok();
}

}  // namespace edgewise::tune
