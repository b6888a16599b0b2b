#include "eval/windows.h"

#include <fmt/format.h>

#include <algorithm>

namespace edgewise::eval {

std::string_view ProtocolName(Protocol protocol) {
  switch (protocol) {
    case Protocol::kFixed:
      return "fixed";
    case Protocol::kLmEval:
      return "lm-eval";
    case Protocol::kLlamaCpp:
      return "llama.cpp";
  }
  return "";
}

Result<Protocol> ParseProtocol(std::string_view name) {
  for (Protocol p : {Protocol::kFixed, Protocol::kLmEval, Protocol::kLlamaCpp}) {
    if (name == ProtocolName(p)) return p;
  }
  return InvalidArgument(
      fmt::format("unknown protocol '{}': use fixed, lm-eval or llama.cpp", name));
}

std::vector<Window> FixedWindows(int64_t tokens, int64_t ctx) {
  std::vector<Window> windows;
  for (int64_t begin = 0; begin + ctx <= tokens; begin += ctx) {
    windows.push_back({begin, begin + ctx - 1, begin});
  }
  return windows;
}

std::vector<Window> LlamaCppWindows(int64_t tokens, int64_t ctx) {
  std::vector<Window> windows = FixedWindows(tokens, ctx);
  for (Window& w : windows) w.first_scored = w.begin + ctx / 2;
  return windows;
}

std::vector<Window> RollingWindows(int64_t tokens, int64_t ctx) {
  std::vector<Window> windows;
  for (int64_t done = 0; done < tokens;) {
    const int64_t end = std::min(tokens, done + ctx);
    windows.push_back({done, end, done});
    done = end;
  }
  return windows;
}

Window WithFullContext(const Window& window, int64_t ctx) {
  return {std::max<int64_t>(0, window.end - ctx), window.end, window.first_scored};
}

}  // namespace edgewise::eval
