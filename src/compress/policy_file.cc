#include "compress/policy_file.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "compress/policy.h"

namespace edgewise::compress {
namespace {

constexpr int kSchema = 1;

bool KnownBits(int bits) {
  return bits == 2 || bits == 3 || bits == 4 || bits == 5 || bits == 6 || bits == 8 || bits == 16;
}

template <typename Fn>
double WeightedMean(const CompressionPolicy& policy, const model::ModelConfig& config, Fn value) {
  double sum = 0, weights = 0;
  for (const auto& layer : policy.layers) {
    for (model::LinearKind kind : model::kAllLinears) {
      const model::LinearShape shape = model::ShapeOf(config, kind);
      const double n = static_cast<double>(shape.in) * static_cast<double>(shape.out);
      sum += n * value(layer[static_cast<size_t>(kind)]);
      weights += n;
    }
  }
  return weights > 0 ? sum / weights : 0;
}

Result<CompressionPolicy> Read(const Json& json, const model::ModelConfig& config) {
  CompressionPolicy p;
  if (json.at("schema").get<int>() != kSchema) {
    return Unsupported(fmt::format("policy of schema {}, this program reads {}",
                                   json.at("schema").get<int>(), kSchema));
  }
  p.name = json.value("policy", "edited");
  p.group = json.value("group", p.group);
  p.pattern = json.value("pattern", p.pattern);
  p.embedding_bits = json.value("embedding_bits", p.embedding_bits);
  p.head_bits = json.value("head_bits", p.head_bits);
  if (p.group != 0 && p.group != 32 && p.group != 64 && p.group != 128) {
    return BadInput(fmt::format("group {}: use 0 (per row), 32, 64 or 128", p.group));
  }
  EW_RETURN_IF_ERROR(ParsePattern(p.pattern).status());
  for (int bits : {p.embedding_bits, p.head_bits}) {
    if (bits != 4 && bits != 8 && bits != 16) {
      return BadInput(fmt::format("embedding_bits and head_bits may be 4, 8 or 16, not {}", bits));
    }
  }
  const Json& layers = json.at("layers");
  if (static_cast<int64_t>(layers.size()) != config.num_layers()) {
    return BadInput(
        fmt::format("the policy has {} layers, the model {}", layers.size(), config.num_layers()));
  }
  for (const Json& layer : layers) {
    auto& options = p.layers.emplace_back();
    for (model::LinearKind kind : model::kAllLinears) {
      const std::string name(model::LinearName(kind));
      const std::string where = fmt::format("layer {} {}", p.layers.size() - 1, name);
      if (!layer.contains(name)) return BadInput(where + " is missing from the policy");
      Option& o = options[static_cast<size_t>(kind)];
      o.bits = layer.at(name).at("bits");
      o.sparsity = layer.at(name).at("sparsity");
      if (!KnownBits(o.bits)) {
        return BadInput(fmt::format("{}: {} bits; use 2, 3, 4, 5, 6, 8 or 16", where, o.bits));
      }
      if (!(o.sparsity >= 0) || o.sparsity > kMaxSparsity) {
        return BadInput(
            fmt::format("{}: sparsity {} is outside 0..{}", where, o.sparsity, kMaxSparsity));
      }
    }
  }
  return p;
}

}  // namespace

Result<PatternSpec> ParsePattern(std::string_view name) {
  PatternSpec spec;
  if (name == "unstructured") return spec;
  if (name == "block") {
    spec.kind = PatternSpec::Kind::kBlock;
    return spec;
  }
  int kept = 0, of = 0;
  const char* end = name.data() + name.size();
  const auto [colon, ec] = std::from_chars(name.data(), end, kept);
  if (ec == std::errc() && colon != end && *colon == ':') {
    const auto [stop, ec2] = std::from_chars(colon + 1, end, of);
    if (ec2 == std::errc() && stop == end && (of == 4 || of == 8 || of == 16) && kept > 0 &&
        kept < of) {
      spec.kind = PatternSpec::Kind::kNm;
      spec.nm = {of - kept, of};
      return spec;
    }
  }
  return InvalidArgument(fmt::format(
      "'{}' is not a sparsity pattern; known: unstructured, block, n:m with m = 4, 8 or 16 (2:4)",
      name));
}

double CompressionPolicy::average_bits(const model::ModelConfig& config) const {
  return WeightedMean(*this, config, [](const Option& o) { return o.bits; });
}

double CompressionPolicy::average_sparsity(const model::ModelConfig& config) const {
  return WeightedMean(*this, config, [](const Option& o) { return o.sparsity; });
}

OrderedJson PolicyToJson(const CompressionPolicy& p) {
  OrderedJson layers = OrderedJson::array();
  for (const auto& options : p.layers) {
    OrderedJson layer;
    for (model::LinearKind kind : model::kAllLinears) {
      const Option& o = options[static_cast<size_t>(kind)];
      layer[std::string(model::LinearName(kind))] = {{"bits", o.bits}, {"sparsity", o.sparsity}};
    }
    layers.push_back(std::move(layer));
  }
  return {{"schema", kSchema},
          {"policy", p.name},
          {"group", p.group},
          {"pattern", p.pattern},
          {"embedding_bits", p.embedding_bits},
          {"head_bits", p.head_bits},
          {"layers", std::move(layers)}};
}

Result<CompressionPolicy> PolicyFromJson(const Json& json, const model::ModelConfig& config) {
  try {
    return Read(json, config);
  } catch (const nlohmann::json::exception& e) {
    return BadInput(fmt::format("not a compression policy: {}", e.what()));
  }
}

}  // namespace edgewise::compress
