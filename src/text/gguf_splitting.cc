#include "text/gguf_splitting.h"

#include <fmt/format.h>

#include <initializer_list>

namespace edgewise::text {
namespace {

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S))";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kO200k =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|)"
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}|)"
    R"( ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kPunctuation = R"([\p{P}\$\+<=>\^~\|]+)";
constexpr std::string_view kFalconPunctuation = R"([\p{P}\$\+<=>\^~\|`]+)";

}  // namespace

Result<GgufSplitting> GgufSplittingOf(std::string_view pre) {
  auto is = [&](std::initializer_list<std::string_view> names) {
    for (std::string_view name : names) {
      if (pre == name) return true;
    }
    return false;
  };
  const std::string gpt2(kGpt2);
  if (is({"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "jina-es",
          "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de", "jina-v2-code", "roberta-bpe",
          "gigachat", "exaone4"})) {
    return GgufSplitting{{gpt2}};
  }
  if (is({"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0",
          "lfm2"})) {
    return GgufSplitting{{std::string(kLlama3)}, /*ignore_merges=*/true, /*add_bos=*/true};
  }
  if (is({"dbrx", "smaug-bpe", "chatglm-bpe"})) return GgufSplitting{{std::string(kLlama3)}};
  if (is({"qwen2", "stablelm2", "deepseek-r1-qwen", "megrez", "kormo", "hunyuan"})) {
    return GgufSplitting{{std::string(kQwen2)}};
  }
  if (is({"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"})) {
    return GgufSplitting{{R"(\p{N})", gpt2}};
  }
  if (is({"tekken"})) {
    return GgufSplitting{{std::string(kTekken)}, /*ignore_merges=*/true, /*add_bos=*/true};
  }
  if (is({"gpt-4o", "llama4", "kanana2"})) return GgufSplitting{{std::string(kO200k)}};
  if (is({"falcon"})) {
    return GgufSplitting{{std::string(kFalconPunctuation), gpt2, "[0-9][0-9][0-9]"}};
  }
  if (is({"", "default"})) {
    return GgufSplitting{{std::string(kPunctuation), gpt2, R"(\p{N}+)", "[0-9][0-9][0-9]"}};
  }
  return Unsupported(fmt::format(
      "tokenizer.ggml.pre '{}' is not known here: use the model's Hugging Face directory, whose "
      "tokenizer.json says how text is split",
      pre));
}

}  // namespace edgewise::text
