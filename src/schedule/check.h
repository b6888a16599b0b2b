// Whether a plan is sound, decided without the code that made it.
#pragma once

#include "base/status.h"
#include "plan/plan.h"

namespace edgewise::schedule {

// Every square is computed exactly once; the squares of a micro-batch in their order; weights are
// in memory when their stage runs; what is in memory never exceeds the weights' budget, and with
// activations and state never the limit. Error (kInternal): the first thing that is wrong.
Status CheckPlan(const plan::Plan& plan);

}  // namespace edgewise::schedule
