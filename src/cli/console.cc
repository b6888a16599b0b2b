#include "cli/console.h"

#include <fmt/format.h>

#include <cstdio>

#include "report/table.h"

namespace edgewise::cli {
namespace {

// "error: ..." must stay one line whatever a file name or a token in it holds.
std::string OneLine(std::string_view text) {
  std::string out;
  for (char c : text) {
    const auto u = static_cast<unsigned char>(c);
    if (c == '\n') {
      out += "\\n";
    } else if (u < 0x20 || u == 0x7F) {
      out += fmt::format("\\x{:02x}", u);
    } else {
      out += c;
    }
  }
  return out;
}

std::string ScalarText(const OrderedJson& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_float()) return fmt::format("{:.6g}", value.get<double>());
  return DumpJson(value);
}

}  // namespace

int ExitCode(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return 0;
    case StatusCode::kInvalidArgument:
      return 1;
    case StatusCode::kBadInput:
    case StatusCode::kNotFound:
    case StatusCode::kUnsupported:
    case StatusCode::kIo:
      return 2;
    case StatusCode::kOutOfMemory:
      return 3;
    case StatusCode::kInterrupted:
      return 4;
    case StatusCode::kSaveFailed:
      return 5;
    case StatusCode::kInternal:
      return 70;
  }
  return 70;
}

void WriteStderr(std::string_view text) noexcept {
  (void)std::fwrite(text.data(), 1, text.size(), stderr);
  (void)std::fflush(stderr);
}

bool Console::Write(std::string_view text) {
  if (stdout_closed_) return false;
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    stdout_closed_ = true;
  }
  return !stdout_closed_;
}

bool Console::Text(std::string_view text) {
  text_given_ = true;
  return json_ ? !stdout_closed_ : Write(text);
}

void Console::Log(std::string_view line) {
  if (!quiet_) Warn(line);
}

void Console::Warn(std::string_view line) { WriteStderr(std::string(line) + "\n"); }

void Console::SetResult(OrderedJson result, std::string text) {
  result_ = std::move(result);
  Text(text);
}

int Console::Finish(const Status& status) {
  Status outcome = status;
  if (json_) {
    OrderedJson out = result_.is_null() ? OrderedJson::object() : result_;
    if (!status.ok()) {
      out["error"] = {{"code", ExitCode(status.code())},
                      {"type", StatusCodeName(status.code())},
                      {"message", status.message()}};
    }
    Write(DumpJson(out) + "\n");
  } else if (!text_given_ && result_.is_object()) {
    report::Table table({});
    for (const auto& [key, value] : result_.items()) {
      if (value.is_primitive()) table.AddRow({key, ScalarText(value)});
    }
    Write(table.Render());
  }
  if (outcome.ok() && stdout_closed_) {
    outcome = {StatusCode::kSaveFailed, "the result could not be written to stdout"};
  }
  if (!outcome.ok()) WriteStderr("error: " + OneLine(outcome.message()) + "\n");
  return ExitCode(outcome.code());
}

}  // namespace edgewise::cli
