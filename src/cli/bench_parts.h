// bench tune: what the cost model predicts for a step, part by part, beside what was measured.
#pragma once

#include "exec/context.h"
#include "io/json.h"
#include "model/part_times.h"
#include "plan/workload.h"

namespace edgewise::cli {

// `times`: the sums of `steps` steps that `workload` describes. Measures the workload's operations
// for themselves. Keys: predicted_seconds (of a step), parts (by kind: seconds, predicted_seconds).
Result<OrderedJson> ComparePrediction(ExecContext& ctx, const plan::Workload& workload,
                                      const model::PartTimes& times, int64_t steps);

}  // namespace edgewise::cli
