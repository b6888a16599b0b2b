// The weight matrices of the models that benchmarks are named after.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace edgewise::bench {

struct ModelShape {
  const char* name;
  int64_t hidden, ffn, layers, heads, kv_heads, head_dim, vocab;
};

inline const std::vector<ModelShape>& ModelShapes() {
  static const std::vector<ModelShape> shapes = {
      {"smollm2-135m", 576, 1536, 30, 9, 3, 64, 49152},
      {"qwen2.5-0.5b", 896, 4864, 24, 14, 2, 64, 151936},
      {"tinyllama-1.1b", 2048, 5632, 22, 32, 4, 64, 32000},
      {"llama-7b", 4096, 11008, 32, 32, 32, 128, 32000},
  };
  return shapes;
}

// One linear layer, W [out, in].
struct LinearShape {
  const char* name;
  int64_t out, in;
};

inline std::vector<LinearShape> Linears(const ModelShape& m) {
  return {{"q", m.heads * m.head_dim, m.hidden},
          {"kv", m.kv_heads * m.head_dim, m.hidden},
          {"gate", m.ffn, m.hidden},
          {"down", m.hidden, m.ffn}};
}

}  // namespace edgewise::bench
