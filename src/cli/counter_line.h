// A count with a figure on stderr, rewritten on a terminal, printed every few seconds elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "cli/console.h"

namespace edgewise::cli {

class CounterLine {
 public:
  // "perplexity 12/117 (ppl 41.2)" with label "perplexity" and figure "ppl".
  CounterLine(Console& console, std::string label, std::string figure);
  ~CounterLine();
  CounterLine(const CounterLine&) = delete;
  CounterLine& operator=(const CounterLine&) = delete;

  void Update(int64_t done, int64_t total, double value);

 private:
  Console& console_;
  const std::string label_, figure_;
  const bool live_;
  bool open_ = false;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace edgewise::cli
