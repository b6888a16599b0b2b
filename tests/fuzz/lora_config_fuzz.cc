#include <cstdint>

#include "formats/peft.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace edgewise::formats;
  const auto config = ParseLoraConfig({reinterpret_cast<const char*>(data), size});
  if (!config.ok()) return 0;
  // What is written is read back.
  if (!ParseLoraConfig(FormatLoraConfig(*config)).ok()) __builtin_trap();
  const auto matcher = LoraMatcher::Create(*config);
  if (!matcher.ok()) return 0;
  (void)matcher->Match("model.layers.1.self_attn.q_proj");
  (void)matcher->Match("lm_head");
  return 0;
}
