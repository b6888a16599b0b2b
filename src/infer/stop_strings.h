// Stop strings in streamed text: nothing that belongs to one is ever shown.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace edgewise::infer {

class StopStrings {
 public:
  // Empty strings are ignored.
  explicit StopStrings(std::vector<std::string> stops);

  // Takes the next piece of text and gives what can be shown: all of it but the longest tail that
  // may be the beginning of a stop string. When a stop string is complete, gives what stands before
  // the first one and ignores everything after it.
  std::string Feed(std::string_view piece);
  // The end of the text: what was held back.
  std::string Finish();

  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace edgewise::infer
