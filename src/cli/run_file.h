// Results that the program adds to RUN/edgewise.json beside those of training.
#pragma once

#include <string>

#include "base/status.h"
#include "io/json.h"
#include "tune/memory_estimate.h"

namespace edgewise::cli {

// Sets the keys of the object `results` in the run's file. Error: the file is not an object.
Status AddToRunFile(const std::string& run_dir, const OrderedJson& results);

// {"peak_bytes", "categories": {...}}: what the process held at its peak, by what it was for. What
// the categories leave unexplained is the difference of their sum to the peak.
OrderedJson MemoryTrace(const tune::MemoryEstimate& memory, int64_t cache_bytes,
                        int64_t peak_bytes);

}  // namespace edgewise::cli
