#include "compress/table.h"

#include <fmt/format.h>

#include <cmath>

namespace edgewise::compress {
namespace {

constexpr int kSchema = 1;

OrderedJson MeasuresToJson(const std::vector<Measure>& measures) {
  OrderedJson out = OrderedJson::array();
  for (const Measure& m : measures) {
    OrderedJson j = {{"bits", m.option.bits},
                     {"sparsity", m.option.sparsity},
                     {"mse", m.mse},
                     {"relative", m.relative}};
    if (m.loss >= 0) j["loss"] = m.loss;
    out.push_back(std::move(j));
  }
  return out;
}

Result<std::vector<Measure>> MeasuresFromJson(const Json& json, const std::string& where) {
  std::vector<Measure> out;
  if (!json.is_array()) return BadInput(where + ": expected a list");
  for (const Json& j : json) {
    Measure m;
    m.option.bits = j.at("bits");
    m.option.sparsity = j.at("sparsity");
    m.mse = j.at("mse");
    m.relative = j.at("relative");
    m.loss = j.value("loss", -1.0);
    if (m.option.bits < 1 || m.option.bits > 32 || !(m.option.sparsity >= 0) ||
        !(m.option.sparsity <= 1) || !(m.mse >= 0) || !std::isfinite(m.mse)) {
      return BadInput(where + ": a measure is out of range");
    }
    out.push_back(m);
  }
  return out;
}

Result<SensitivityTable> Read(const Json& json) {
  SensitivityTable t;
  if (json.at("schema").get<int>() != kSchema) {
    return Unsupported(fmt::format("sensitivity table of schema {}, this program reads {}",
                                   json.at("schema").get<int>(), kSchema));
  }
  t.model_hash = json.at("model_hash");
  t.calibration_hash = json.at("calibration_hash");
  t.windows = json.at("windows");
  t.window_tokens = json.at("window_tokens");
  t.group = json.at("group");
  t.quantizer = json.at("quantizer");
  t.pruner = json.at("pruner");
  t.pattern = json.value("pattern", t.pattern);
  for (const Json& layer : json.at("layers")) {
    const std::string where = fmt::format("layer {}", t.layers.size());
    LayerSensitivity l;
    EW_ASSIGN(l.quantized, MeasuresFromJson(layer.at("quantized"), where + " quantized"));
    EW_ASSIGN(l.pruned, MeasuresFromJson(layer.at("pruned"), where + " pruned"));
    for (const Json& linear : layer.at("linears")) {
      LinearSensitivity s;
      s.name = linear.at("name");
      s.rows = linear.at("rows");
      s.cols = linear.at("cols");
      if (s.rows <= 0 || s.cols <= 0) return BadInput(where + " " + s.name + ": bad shape");
      EW_ASSIGN(s.measures, MeasuresFromJson(linear.at("measures"), where + " " + s.name));
      l.linears.push_back(std::move(s));
    }
    t.layers.push_back(std::move(l));
  }
  return t;
}

}  // namespace

Result<std::vector<double>> SensitivityTable::QuantScalars(int bits) const {
  std::vector<double> out;
  for (const LayerSensitivity& l : layers) {
    bool found = false;
    for (const Measure& m : l.quantized) {
      if (m.option.bits != bits) continue;
      out.push_back(m.mse);
      found = true;
      break;
    }
    if (!found) {
      return NotFound(fmt::format(
          "the sensitivity table has no measure at {} bits; profile again with that width", bits));
    }
  }
  return out;
}

Result<std::vector<double>> SensitivityTable::PruneScalars() const {
  std::vector<double> out;
  for (const LayerSensitivity& l : layers) {
    if (l.pruned.empty()) return NotFound("the sensitivity table has no pruning measures");
    double sum = 0;
    for (const Measure& m : l.pruned) sum += m.mse;
    out.push_back(sum / static_cast<double>(l.pruned.size()));
  }
  return out;
}

OrderedJson TableToJson(const SensitivityTable& t) {
  OrderedJson layers = OrderedJson::array();
  for (const LayerSensitivity& l : t.layers) {
    OrderedJson linears = OrderedJson::array();
    for (const LinearSensitivity& s : l.linears) {
      linears.push_back({{"name", s.name},
                         {"rows", s.rows},
                         {"cols", s.cols},
                         {"measures", MeasuresToJson(s.measures)}});
    }
    layers.push_back({{"quantized", MeasuresToJson(l.quantized)},
                      {"pruned", MeasuresToJson(l.pruned)},
                      {"linears", std::move(linears)}});
  }
  return {{"schema", kSchema},
          {"model_hash", t.model_hash},
          {"calibration_hash", t.calibration_hash},
          {"windows", t.windows},
          {"window_tokens", t.window_tokens},
          {"group", t.group},
          {"quantizer", t.quantizer},
          {"pruner", t.pruner},
          {"pattern", t.pattern},
          {"layers", std::move(layers)}};
}

Result<SensitivityTable> TableFromJson(const Json& json) {
  try {
    return Read(json);
  } catch (const nlohmann::json::exception& e) {
    return BadInput(fmt::format("not a sensitivity table: {}", e.what()));
  }
}

}  // namespace edgewise::compress
