#include "cli/bench_parts.h"

#include <string>

#include "schedule/cost.h"
#include "schedule/measure.h"

namespace edgewise::cli {

Result<OrderedJson> ComparePrediction(ExecContext& ctx, const plan::Workload& workload,
                                      const model::PartTimes& times, int64_t steps) {
  plan::Device device = schedule::BareDevice(ctx);
  EW_RETURN_IF_ERROR(schedule::MeasureMissing(ctx, workload, &device));
  model::PartTimes predicted;
  for (const plan::Stage& stage : workload.stages) {
    for (const plan::Op& op : stage.ops) {
      // The head's norms are timed with the head.
      const bool of_head = stage.name == "head";
      predicted[of_head ? stage.ops.front().kind : op.kind] += schedule::CostOf(device, op).seconds;
    }
  }
  predicted[plan::KernelKind::kOptimizer] += workload.optimizer_gbytes / device.memory().read_gbps;
  OrderedJson json;
  double sum = 0;
  OrderedJson parts = OrderedJson::object();
  for (size_t i = 0; i < plan::kKernelKinds; ++i) {
    const double measured = times.seconds[i] / static_cast<double>(steps);
    sum += predicted.seconds[i];
    if (measured <= 0 && predicted.seconds[i] <= 0) continue;
    parts[std::string(plan::KernelKindName(static_cast<plan::KernelKind>(i)))] = {
        {"seconds", measured}, {"predicted_seconds", predicted.seconds[i]}};
  }
  json["predicted_seconds"] = sum;
  json["parts"] = std::move(parts);
  return json;
}

}  // namespace edgewise::cli
