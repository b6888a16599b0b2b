// Bounds on what a template may cost. Chat templates come with model files, so they are hostile
// input: every bound is checked while parsing or rendering and a breach is an error, never a crash.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace edgewise::text::jinja {

struct JinjaLimits {
  int64_t template_bytes = int64_t{256} << 10;
  int nesting = 64;                          // open blocks and open expressions together
  int64_t steps = 1'000'000;                 // nodes evaluated, items and characters visited
  int64_t output_bytes = int64_t{16} << 20;  // also the longest single string
  int64_t live_bytes = int64_t{64} << 20;    // values alive at one moment
  int64_t work_bytes = int64_t{1} << 30;     // bytes of strings produced or searched in total
  int call_depth = 64;                       // macros within macros
  int value_depth = 64;                      // lists within lists
  int64_t range_items = 100'000;             // as in Jinja's sandbox
};

// The kinds of failure; the first word of the message names the kind.
enum class ErrorKind {
  kSyntax,     // the template is not well-formed
  kLimit,      // a bound of JinjaLimits was exceeded
  kForbidden,  // reached for something a template may not touch
  kValue,      // an operation does not fit its operands (Python's TypeError, UndefinedError ...)
  kRaised,     // raise_exception(message): the message is passed on
};
// "limit", "syntax", ...
std::string_view ErrorKindName(ErrorKind kind);
// BadInput with "template line 3: limit error: text"; line 0 when not known. For kRaised the text
// stands alone after the line: "template line 3: raised: text".
Status TemplateError(ErrorKind kind, int line, std::string_view text);

// What the values of one rendering use. Shared by the values, since they release on destruction.
struct Heap {
  explicit Heap(const JinjaLimits& l) : limits(l) {}
  JinjaLimits limits;
  int64_t live = 0;
  int64_t work = 0;
};

// The share of one value in its heap, given back when the value dies. Values made outside of a
// rendering (messages, tools) have none.
class HeapCharge {
 public:
  HeapCharge() = default;
  HeapCharge(std::shared_ptr<Heap> heap, int64_t bytes) : heap_(std::move(heap)), bytes_(bytes) {
    heap_->live += bytes_;
  }
  ~HeapCharge() {
    if (heap_) heap_->live -= bytes_;
  }
  HeapCharge(HeapCharge&& other) noexcept : heap_(std::move(other.heap_)), bytes_(other.bytes_) {}
  HeapCharge& operator=(HeapCharge&&) = delete;
  HeapCharge(const HeapCharge&) = delete;
  HeapCharge& operator=(const HeapCharge&) = delete;

 private:
  std::shared_ptr<Heap> heap_;
  int64_t bytes_ = 0;
};

}  // namespace edgewise::text::jinja
