// What a subcommand is: it declares its options once, then runs with them.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "cli/console.h"
#include "exec/context.h"
#include "kernels/packed/tiling.h"

namespace CLI {
class App;
}

namespace edgewise::cli {

// Options that every command has.
struct CommonOptions {
  bool json = false;
  bool quiet = false;
  int threads = 0;     // 0: as many as the process may use
  std::string isa;     // "": the widest that the processor has
  std::string config;  // YAML file
};

// Set by SIGINT, SIGTERM and SIGHUP from the first call on, a second one ends the process at once;
// before that (what never asks has nothing to save) the first one does. Long-running work asks it
// between steps.
const std::atomic<bool>& StopFlag();

class Invocation {
 public:
  Invocation(const CommonOptions& common, Console& console) : common_(common), console_(console) {}

  Console& console() { return console_; }
  const std::atomic<bool>& stop() const { return StopFlag(); }
  // Threads and instruction set as asked for, made on first use.
  Result<ExecContext*> Exec();
  // What `search-kernels` found for this machine; empty when it never ran.
  Result<const kernels::KernelTuning*> Tuning();

 private:
  const CommonOptions& common_;
  Console& console_;
  std::unique_ptr<ExecContext> exec_;
  std::unique_ptr<kernels::KernelTuning> tuning_;
};

class Command {
 public:
  virtual ~Command() = default;
  virtual std::string name() const = 0;
  virtual std::string summary() const = 0;
  // Adds options and positionals, bound to members of the command.
  virtual void Declare(CLI::App& app) = 0;
  virtual Status Run(Invocation& inv) = 0;
};

// All subcommands in the order of the help text.
std::vector<std::unique_ptr<Command>> MakeCommands();

}  // namespace edgewise::cli
