// Errors as values. The library never prints, exits, aborts or throws on data: every function that
// can fail on input returns Status or Result<T>, whose message says what is wrong, where (file,
// tensor, line) and what to do.
#pragma once

#include <cassert>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace edgewise {

enum class StatusCode {
  kOk,
  kInvalidArgument,  // wrong use of a command or function
  kBadInput,         // a model, data or config file is malformed or hostile
  kNotFound,         // a named file, tensor or option does not exist
  kUnsupported,      // well-formed, but not something this program can do
  kOutOfMemory,      // does not fit the memory limit
  kIo,               // the operating system refused a read or write
  kInterrupted,      // stopped by a signal, state saved
  kSaveFailed,       // the work is done, but saving it failed
  kInternal,         // a bug of ours
};

std::string_view StatusCodeName(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(StatusCode code, std::string message) : code_(code), message_(std::move(message)) {
    assert(code != StatusCode::kOk);
  }

  static Status Ok() { return {}; }
  bool ok() const { return code_ == StatusCode::kOk; }
  StatusCode code() const { return code_; }
  const std::string& message() const { return message_; }

  // The same error with "context: " before its message, for callers that know the file or line.
  Status WithContext(std::string_view context) const;

 private:
  StatusCode code_ = StatusCode::kOk;
  std::string message_;
};

Status InvalidArgument(std::string message);
Status BadInput(std::string message);
Status NotFound(std::string message);
Status Unsupported(std::string message);
Status OutOfMemory(std::string message);
Status IoError(std::string message);
Status Internal(std::string message);

// A value or the reason why there is none. Dereferencing an error is a bug (asserted).
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-*)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-*)
    assert(!status_.ok());
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  Result WithContext(std::string_view context) && {
    if (ok()) return std::move(*this);
    return status_.WithContext(context);
  }

  T& value() & {
    assert(ok());
    return *value_;
  }
  const T& value() const& {
    assert(ok());
    return *value_;
  }
  T&& value() && {
    assert(ok());
    return *std::move(value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace edgewise

// Returns from the enclosing function when `expr` (a Status) is an error.
#define EW_RETURN_IF_ERROR(expr)                                                  \
  do {                                                                            \
    if (::edgewise::Status ew_status = (expr); !ew_status.ok()) return ew_status; \
  } while (false)

#define EW_CONCAT_INNER(a, b) a##b
#define EW_CONCAT(a, b) EW_CONCAT_INNER(a, b)

// EW_ASSIGN(auto x, F()): declares x from a Result, or returns its error.
#define EW_ASSIGN(decl, expr)                                                                 \
  auto EW_CONCAT(ew_result_, __LINE__) = (expr);                                              \
  if (!EW_CONCAT(ew_result_, __LINE__).ok()) return EW_CONCAT(ew_result_, __LINE__).status(); \
  decl = std::move(EW_CONCAT(ew_result_, __LINE__)).value()
