#include "cli/counter_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>

#include "base/units.h"

namespace edgewise::cli {
namespace {

bool LiveTerminal() {
  const char* term = std::getenv("TERM");
  const char* ci = std::getenv("CI");
  return isatty(STDERR_FILENO) == 1 && term != nullptr && std::string_view(term) != "dumb" &&
         (ci == nullptr || *ci == '\0');
}

}  // namespace

CounterLine::CounterLine(Console& console, std::string label, std::string figure)
    : console_(console),
      label_(std::move(label)),
      figure_(std::move(figure)),
      live_(LiveTerminal()),
      start_(std::chrono::steady_clock::now()),
      last_(start_) {}

CounterLine::~CounterLine() {
  if (open_) WriteStderr("\n");
}

void CounterLine::Update(int64_t done, int64_t total, double value) {
  if (console_.quiet()) return;
  const auto now = std::chrono::steady_clock::now();
  const double since = std::chrono::duration<double>(now - last_).count();
  if (since < (live_ ? 0.2 : 10.0) && !(live_ && done == total)) return;
  last_ = now;
  std::string line = fmt::format("{} {}/{}", label_, done, total);
  if (!figure_.empty()) line += fmt::format("  {} {:.4g}", figure_, value);
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  if (done > 0 && done < total) {
    line += "  eta " +
            FormatSeconds(elapsed / static_cast<double>(done) * static_cast<double>(total - done));
  }
  WriteStderr(live_ ? "\r" + line + "\x1b[K" : line + "\n");
  open_ = live_;
}

}  // namespace edgewise::cli
