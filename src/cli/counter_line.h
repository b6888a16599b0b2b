// A count with a figure on stderr, rewritten on a terminal, printed every few seconds elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "cli/console.h"

namespace edgewise::cli {

class CounterLine {
 public:
  // "perplexity 12/117  so far 41.2  eta 0:31" with label "perplexity" and figure "so far"; the
  // value is left out without a figure.
  CounterLine(Console& console, std::string label, std::string figure = "");
  ~CounterLine();
  CounterLine(const CounterLine&) = delete;
  CounterLine& operator=(const CounterLine&) = delete;

  void Update(int64_t done, int64_t total, double value = 0);

 private:
  Console& console_;
  const std::string label_, figure_;
  const bool live_;
  bool open_ = false;
  const std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_;
};

}  // namespace edgewise::cli
