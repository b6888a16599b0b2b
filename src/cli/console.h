// Where a command's words go: results on stdout, progress and logs on stderr. With --json the only
// thing on stdout is one JSON object, printed when the command ends, errors included.
#pragma once

#include <string>
#include <string_view>

#include "base/status.h"
#include "io/json.h"

namespace edgewise::cli {

// The exit code of an error (docs/usage.md): 0 done, 1 wrong use, 2 bad input, 3 does not fit the
// memory limit, 4 interrupted with state saved, 5 finished but a save failed, 70 a bug of ours.
int ExitCode(StatusCode code);

// To stderr at once. What cannot be written (a full disk, a terminal that went away) is dropped: no
// work is given up for the lack of a listener.
void WriteStderr(std::string_view text) noexcept;

class Console {
 public:
  Console(bool json, bool quiet) : json_(json), quiet_(quiet) {}

  bool json() const { return json_; }
  bool quiet() const { return quiet_; }

  // Result text for people, on stdout at once; nothing with --json. False when stdout is closed.
  bool Text(std::string_view text);
  // One line on stderr; nothing with --quiet.
  void Log(std::string_view line);
  // One line on stderr, also with --quiet.
  void Warn(std::string_view line);

  // What --json prints. Without --json and without `text`, the scalars are printed as "key value".
  void SetResult(OrderedJson result) { result_ = std::move(result); }
  void SetResult(OrderedJson result, std::string text);

  // Prints what is left to print and returns the exit code.
  int Finish(const Status& status);

 private:
  bool Write(std::string_view text);

  const bool json_;
  const bool quiet_;
  bool stdout_closed_ = false;
  bool text_given_ = false;
  OrderedJson result_;
};

}  // namespace edgewise::cli
