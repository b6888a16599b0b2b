#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "cli/app.h"
#include "cli/command.h"

namespace edgewise::cli {
namespace {

// Signal handlers can only reach a static object; nothing but the cli layer sees it.
std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

extern "C" void HandleStop(int signal) {
  if (stop_requested.exchange(true)) std::_Exit(128 + signal);
}

void CatchStopSignals() {
  struct sigaction action = {};
  action.sa_handler = HandleStop;
  sigemptyset(&action.sa_mask);
  // No SA_RESTART: a read from a terminal must return when the user presses Ctrl-C.
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    // What the caller has made the program ignore (nohup) stays ignored.
    struct sigaction before = {};
    sigaction(signal, nullptr, &before);
    if (before.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
  }
}

}  // namespace

const std::atomic<bool>& StopFlag() {
  static const bool caught = [] {
    CatchStopSignals();
    return true;
  }();
  (void)caught;
  return stop_requested;
}

void HoldStandardStreams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(stream, F_GETFD) != -1) continue;
    // The lowest number that is free, which is this one. Writing to it fails.
    (void)::open("/dev/null", O_RDONLY);
  }
}

void IgnoreClosedPipes() { std::signal(SIGPIPE, SIG_IGN); }

}  // namespace edgewise::cli
