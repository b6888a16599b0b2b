#include "compress/derive.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "compress/knapsack.h"
#include "compress/policy.h"

namespace edgewise::compress {
namespace {

CompressionPolicy Empty(const PolicyRequest& request) {
  CompressionPolicy p;
  p.name = PolicyKindName(request.kind);
  p.group = request.group;
  p.pattern = request.pattern;
  p.embedding_bits = request.embedding_bits;
  p.head_bits = request.head_bits;
  return p;
}

// One option for all linears of each layer.
CompressionPolicy PerLayer(const PolicyRequest& request, const LayerPolicy& layers) {
  CompressionPolicy p = Empty(request);
  for (size_t l = 0; l < layers.bits.size(); ++l) {
    p.layers.emplace_back().fill({layers.bits[l], layers.sparsity[l]});
  }
  return p;
}

// Widths that exist: 7 has no layout of its own.
int PackableBits(int bits) { return bits == 7 || bits > 8 ? 8 : bits; }

Result<LayerPolicy> PaperLayers(const SensitivityTable& table, const PolicyRequest& request) {
  LayerPolicy out;
  EW_ASSIGN(const std::vector<double> quant, table.QuantScalars(request.bits));
  out.bits = PaperBits(quant, request.bits);
  for (int& b : out.bits) b = PackableBits(b);
  out.sparsity.assign(out.bits.size(), 0.0);
  if (request.sparsity > 0) {
    EW_ASSIGN(const std::vector<double> prune, table.PruneScalars());
    out.sparsity = request.kind == PolicyKind::kPaperLiteral
                       ? PaperLiteralSparsity(prune, request.sparsity)
                       : PaperSparsity(prune, request.sparsity);
  }
  return out;
}

int64_t CostOf(const CompressionPolicy& policy, const model::ModelConfig& config,
               const CostFn& cost) {
  int64_t sum = 0;
  for (const auto& layer : policy.layers) {
    for (model::LinearKind kind : model::kAllLinears) {
      const model::LinearShape shape = model::ShapeOf(config, kind);
      sum += cost(shape.out, shape.in, layer[static_cast<size_t>(kind)]);
    }
  }
  return sum;
}

Result<DerivedPolicy> Budget(const SensitivityTable& table, const model::ModelConfig& config,
                             const PolicyRequest& request, const CostFn& cost) {
  DerivedPolicy out;
  out.budget = request.budget;
  if (out.budget == 0) {
    const auto layers = static_cast<size_t>(config.num_layers());
    const LayerPolicy uniform{std::vector<int>(layers, request.bits),
                              std::vector<double>(layers, request.sparsity)};
    out.budget = CostOf(PerLayer(request, uniform), config, cost);
  }
  EW_ASSIGN(const PatternSpec pattern, ParsePattern(request.pattern));
  const auto allowed = [&](double sparsity) {
    if (sparsity <= 0) return true;
    if (!request.allow_sparsity) return false;
    // n:m has one sparsity only.
    return pattern.kind != PatternSpec::Kind::kNm ||
           std::abs(sparsity - static_cast<double>(pattern.nm.n) / pattern.nm.m) < 1e-9;
  };
  std::vector<std::vector<KnapsackOption>> items;
  std::vector<std::vector<Option>> options;
  for (size_t l = 0; l < table.layers.size(); ++l) {
    for (const LinearSensitivity& linear : table.layers[l].linears) {
      auto& item = items.emplace_back();
      auto& names = options.emplace_back();
      for (const Measure& m : linear.measures) {
        if (!allowed(m.option.sparsity)) continue;
        item.push_back({cost(linear.rows, linear.cols, m.option), m.loss >= 0 ? m.loss : m.mse});
        names.push_back(m.option);
      }
      if (item.empty()) {
        return NotFound(fmt::format("the sensitivity table has no usable measure for layer {} {}",
                                    l, linear.name));
      }
    }
  }
  EW_ASSIGN(const KnapsackSolution solution, SolveKnapsack(items, out.budget));
  out.policy = Empty(request);
  size_t at = 0;
  for (const LayerSensitivity& layer : table.layers) {
    auto& chosen = out.policy.layers.emplace_back();
    for (size_t k = 0; k < layer.linears.size(); ++k, ++at) {
      chosen[k] = options[at][static_cast<size_t>(solution.choice[at])];
    }
  }
  out.predicted_loss = solution.loss;
  out.lower_bound = solution.lower_bound;
  out.cost = solution.cost;
  out.exact = solution.exact;
  return out;
}

Status CheckFits(const SensitivityTable& table, const model::ModelConfig& config) {
  if (static_cast<int64_t>(table.layers.size()) != config.num_layers()) {
    return BadInput(fmt::format("the sensitivity table has {} layers, the model {}",
                                table.layers.size(), config.num_layers()));
  }
  for (size_t l = 0; l < table.layers.size(); ++l) {
    const auto& linears = table.layers[l].linears;
    if (linears.empty()) continue;  // a table of whole layers only
    for (model::LinearKind kind : model::kAllLinears) {
      const auto k = static_cast<size_t>(kind);
      const model::LinearShape shape = model::ShapeOf(config, kind);
      if (linears.size() != model::kLinearKinds || linears[k].name != model::LinearName(kind) ||
          linears[k].rows != shape.out || linears[k].cols != shape.in) {
        return BadInput(
            fmt::format("the sensitivity table was made for another model (layer {})", l));
      }
    }
  }
  return Status::Ok();
}

}  // namespace

Result<PolicyKind> ParsePolicyKind(std::string_view name) {
  for (PolicyKind kind : {PolicyKind::kPaper, PolicyKind::kPaperLiteral, PolicyKind::kUniform,
                          PolicyKind::kRandom, PolicyKind::kBudget}) {
    if (PolicyKindName(kind) == name) return kind;
  }
  return InvalidArgument(fmt::format(
      "'{}' is not a policy; known: paper, paper-literal, uniform, random, budget", name));
}

std::string_view PolicyKindName(PolicyKind kind) {
  switch (kind) {
    case PolicyKind::kPaper:
      return "paper";
    case PolicyKind::kPaperLiteral:
      return "paper-literal";
    case PolicyKind::kUniform:
      return "uniform";
    case PolicyKind::kRandom:
      return "random";
    case PolicyKind::kBudget:
      return "budget";
  }
  return "?";
}

Result<DerivedPolicy> DerivePolicy(const SensitivityTable& table, const model::ModelConfig& config,
                                   const PolicyRequest& request, const CostFn& cost) {
  if (!(request.sparsity >= 0) || request.sparsity > kMaxSparsity) {
    return InvalidArgument(
        fmt::format("sparsity {} is outside 0..{}", request.sparsity, kMaxSparsity));
  }
  EW_RETURN_IF_ERROR(ParsePattern(request.pattern).status());
  EW_RETURN_IF_ERROR(CheckFits(table, config));
  if (request.kind == PolicyKind::kBudget) return Budget(table, config, request, cost);
  DerivedPolicy out;
  const auto layers = static_cast<size_t>(config.num_layers());
  if (request.kind == PolicyKind::kUniform) {
    out.policy = PerLayer(request, {std::vector<int>(layers, request.bits),
                                    std::vector<double>(layers, request.sparsity)});
  } else {
    EW_ASSIGN(LayerPolicy paper, PaperLayers(table, request));
    if (request.kind == PolicyKind::kRandom) paper = RandomPolicy(paper, request.seed);
    out.policy = PerLayer(request, paper);
  }
  out.cost = out.budget = CostOf(out.policy, config, cost);
  return out;
}

}  // namespace edgewise::compress
