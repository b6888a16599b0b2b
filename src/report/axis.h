// Axes: from a range of values to ticks that people read easily, and from values to pixels.
#pragma once

#include <cmath>
#include <string>
#include <vector>

namespace edgewise::report {

struct Axis {
  double lo = 0, hi = 1;      // of the values, both ends inside the drawing
  double from = 0, to = 1;    // pixels of lo and hi
  std::vector<double> ticks;  // ascending, in [lo, hi]
  bool log = false;           // equal distances for equal ratios; lo > 0
  double At(double value) const {
    const double place = log ? std::log(value / lo) / std::log(hi / lo) : (value - lo) / (hi - lo);
    return from + place * (to - from);
  }
};

// Ticks at multiples of 1, 2 or 5 times a power of ten, at most `max_ticks` (>= 2) of them; lo and
// hi are moved outwards to ticks. Ranges that are empty or not finite become [0, 1].
Axis MakeAxis(double lo, double hi, int max_ticks);
// The same without moving the ends: for steps and times.
Axis MakeExactAxis(double lo, double hi, int max_ticks);

// Logarithmic, from one power of ten to another, with ticks at powers of ten. REQUIRES 0 < lo <=
// hi, finite.
Axis MakeLogAxis(double lo, double hi);

// The text of a tick: as many digits as tell it from its neighbours, "20k" and "3M" for large
// round numbers.
std::string TickText(double value, const Axis& axis);

}  // namespace edgewise::report
