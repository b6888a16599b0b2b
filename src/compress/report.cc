#include "compress/report.h"

#include <fmt/format.h>

#include <algorithm>

namespace edgewise::compress {
namespace {

using model::kAllLinears;
using model::LinearKind;

size_t Index(LinearKind kind) { return static_cast<size_t>(kind); }

CompressReport Read(const Json& json) {
  CompressReport out;
  for (const Json& layer : json.at("layers")) {
    auto& reports = out.layers.emplace_back();
    for (LinearKind kind : kAllLinears) {
      const Json& l = layer.at("linears").at(std::string(model::LinearName(kind)));
      LinearReport& r = reports[Index(kind)];
      r.option = {l.at("bits").get<int>(), l.at("sparsity").get<double>()};
      r.bytes = l.at("bytes");
      r.weights = l.value("weights", int64_t{0});
      r.error = l.at("error");
    }
  }
  out.linear_bytes = json.at("linear_bytes");
  out.embedding_bytes = json.at("embedding_bytes");
  out.linear_weights = json.value("linear_weights", int64_t{0});
  out.file_bytes = json.at("file_bytes");
  out.average_bits = json.at("average_bits");
  out.sparsity = json.at("sparsity");
  out.warnings = json.value("warnings", std::vector<std::string>());
  return out;
}

}  // namespace

OrderedJson ReportToJson(const CompressReport& r) {
  OrderedJson layers = OrderedJson::array();
  for (const auto& layer : r.layers) {
    OrderedJson linears;
    int64_t bytes = 0;
    double error = 0, bits = 0, sparsity = 0, weights = 0;
    for (LinearKind kind : kAllLinears) {
      const LinearReport& l = layer[Index(kind)];
      bytes += l.bytes;
      error = std::max(error, l.error);
      const auto n = static_cast<double>(l.weights);
      weights += n;
      bits += n * l.option.bits;
      sparsity += n * l.option.sparsity;
      linears[std::string(model::LinearName(kind))] = {{"bits", l.option.bits},
                                                       {"sparsity", l.option.sparsity},
                                                       {"bytes", l.bytes},
                                                       {"weights", l.weights},
                                                       {"error", l.error}};
    }
    layers.push_back({{"bits", weights > 0 ? bits / weights : 0},
                      {"sparsity", weights > 0 ? sparsity / weights : 0},
                      {"bytes", bytes},
                      {"error", error},
                      {"linears", std::move(linears)}});
  }
  return {{"layers", std::move(layers)},
          {"linear_bytes", r.linear_bytes},
          {"embedding_bytes", r.embedding_bytes},
          {"bytes", r.linear_bytes + r.embedding_bytes},
          {"linear_weights", r.linear_weights},
          {"file_bytes", r.file_bytes},
          {"average_bits", r.average_bits},
          {"sparsity", r.sparsity},
          {"bits_per_weight", r.linear_weights > 0 ? 8.0 * static_cast<double>(r.linear_bytes) /
                                                         static_cast<double>(r.linear_weights)
                                                   : 0.0},
          {"warnings", r.warnings}};
}

Result<CompressReport> ReportFromJson(const Json& json) {
  try {
    return Read(json);
  } catch (const nlohmann::json::exception& e) {
    return BadInput(fmt::format("not a compression report: {}", e.what()));
  }
}

}  // namespace edgewise::compress
