// A plan's timeline as a picture.
#pragma once

#include <string>

#include "plan/plan.h"

namespace edgewise::schedule {

// A stand-alone SVG: one lane each for computing, loading and storing, time from left to right.
std::string TimelineSvg(const plan::Plan& plan);

}  // namespace edgewise::schedule
