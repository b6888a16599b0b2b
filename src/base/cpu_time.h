#pragma once

#include <time.h>

namespace edgewise {

// Seconds of a processor that the calling thread has used so far, the system's work for it
// included.
inline double ThreadCpuSeconds() {
  timespec t = {};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

}  // namespace edgewise
