#include "cli/inspect_packed.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include "base/units.h"
#include "compress/report.h"
#include "formats/safetensors.h"
#include "io/env.h"
#include "kernels/packed/packed_matrix.h"
#include "model/packed_base.h"
#include "model/weights.h"
#include "report/table.h"

namespace edgewise::cli {
namespace {

using kernels::PackedMatrix;
using kernels::Structure;

std::string PatternName(const kernels::PackedFormat& f) {
  switch (f.structure) {
    case Structure::kUnstructured:
      return "unstructured";
    case Structure::kNM:
      return fmt::format("{}:{}", f.nm_n, f.nm_m);
    case Structure::kBlock:
      return fmt::format("block 16x{}", f.block_cols);
    case Structure::kDense:
      break;
  }
  return "dense";
}

// Share of the weights that are not stored.
double SparsityOf(const PackedMatrix& m) {
  const kernels::PackedFormat& f = m.format();
  const kernels::PackedLayout& l = m.layout();
  const double all = static_cast<double>(f.rows) * static_cast<double>(f.cols);
  double kept = all;
  if (f.structure == Structure::kUnstructured) {
    int64_t bits = 0;
    for (int64_t tile = 0; tile < l.tiles; ++tile) {
      for (int64_t unit = 0; unit < l.units; ++unit) {
        for (int64_t step = 0; step < 8; ++step) bits += std::popcount(m.mask(tile, unit, step));
      }
    }
    kept = static_cast<double>(bits);
  } else if (f.structure == Structure::kNM) {
    kept = all * f.nm_n / f.nm_m;
  } else if (f.structure == Structure::kBlock) {
    const double blocks =
        static_cast<double>(l.tiles) * std::ceil(static_cast<double>(f.cols) / f.block_cols);
    kept = all * (blocks > 0 ? m.index(l.tiles) / blocks : 0);
  }
  return all > 0 ? std::max(0.0, 1.0 - kept / all) : 0;
}

struct Row {
  std::string linear, pattern;
  int bits = 16;
  int group = 0;
  double sparsity = 0;
  int64_t bytes = 0, weights = 0;
  std::optional<double> error;
};

Result<Row> ReadRow(const formats::SafetensorsFile& file, const std::string& weight) {
  Row row;
  const std::string packed = model::PackedName(weight);
  const bool is_packed = file.Has(packed);
  EW_ASSIGN(const HostTensor tensor, file.Get(is_packed ? packed : weight));
  row.bytes = tensor.view.bytes();
  if (!is_packed) {
    row.pattern = DTypeName(tensor.view.dtype);
    row.weights = tensor.view.elements();
    return row;
  }
  const std::span<const std::byte> bytes(static_cast<const std::byte*>(tensor.view.data),
                                         static_cast<size_t>(tensor.view.bytes()));
  EW_ASSIGN(const PackedMatrix m, PackedMatrix::FromBytes(bytes, tensor.owner).WithContext(packed));
  row.pattern = PatternName(m.format());
  row.bits = m.format().bits;
  row.group = m.format().group;
  row.sparsity = SparsityOf(m);
  row.weights = m.rows() * m.cols();
  return row;
}

OrderedJson RowJson(const Row& r) {
  OrderedJson j = {{"bits", r.bits},   {"sparsity", r.sparsity}, {"pattern", r.pattern},
                   {"group", r.group}, {"bytes", r.bytes},       {"weights", r.weights}};
  j["error"] = r.error ? OrderedJson(*r.error) : OrderedJson(nullptr);
  return j;
}

std::vector<std::string> Cells(const std::string& layer, const Row& r) {
  return {layer,
          r.linear,
          fmt::format("{}", r.bits),
          fmt::format("{:.1f}%", 100 * r.sparsity),
          r.pattern,
          FormatBytes(r.bytes),
          r.error ? fmt::format("{:.5f}", *r.error) : "-"};
}

}  // namespace

Status InspectPackedBase(const std::string& directory, const model::ModelConfig& config,
                         bool details, OrderedJson& json, std::string& text) {
  EW_ASSIGN(const auto file,
            formats::SafetensorsFile::Open(JoinPath(directory, model::kPackedFile)));
  // Errors were measured when the base was made.
  std::optional<compress::CompressReport> report;
  const Result<Json> about = ReadJsonFile(JoinPath(directory, "edgewise.json"));
  if (about.ok() && about->is_object()) {
    for (const char* key : {"policy", "pruner", "quantizer", "calibration", "source"}) {
      if (!about->contains(key)) continue;
      const Json& value = about->at(key);
      json[key] = key == std::string_view("policy") && value.is_object()
                      ? OrderedJson(value.value("policy", "edited"))
                      : OrderedJson(value);
    }
    if (about->contains("report")) {
      Result<compress::CompressReport> read = compress::ReportFromJson(about->at("report"));
      if (read.ok() && static_cast<int64_t>(read->layers.size()) == config.num_layers()) {
        report = *std::move(read);
      }
    }
  }
  json["kind"] = "packed base";
  json["layers"] = OrderedJson::array();
  report::Table layers({"layer", "bits", "sparsity", "size", "bits a weight", "worst error"});
  report::Table linears({"layer", "linear", "bits", "sparsity", "pattern", "size", "error"});
  int64_t all_bytes = 0, all_weights = 0;
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    OrderedJson entry, by_name;
    double bits = 0, sparsity = 0, error = 0, weights = 0;
    int64_t bytes = 0;
    for (model::LinearKind kind : model::kAllLinears) {
      EW_ASSIGN(Row row, ReadRow(*file, model::LinearPath(layer, kind) + ".weight"));
      row.linear = model::LinearName(kind);
      if (report) {
        row.error = report->layers[static_cast<size_t>(layer)][static_cast<size_t>(kind)].error;
        error = std::max(error, *row.error);
      }
      const auto n = static_cast<double>(row.weights);
      weights += n;
      bits += n * row.bits;
      sparsity += n * row.sparsity;
      bytes += row.bytes;
      by_name[row.linear] = RowJson(row);
      linears.AddRow(Cells(std::to_string(layer), row));
    }
    all_bytes += bytes;
    all_weights += static_cast<int64_t>(weights);
    entry = {{"bits", bits / weights},
             {"sparsity", sparsity / weights},
             {"bytes", bytes},
             {"error", report ? OrderedJson(error) : OrderedJson(nullptr)},
             {"linears", std::move(by_name)}};
    json["layers"].push_back(std::move(entry));
    layers.AddRow({std::to_string(layer), fmt::format("{:.2f}", bits / weights),
                   fmt::format("{:.1f}%", 100 * sparsity / weights), FormatBytes(bytes),
                   fmt::format("{:.2f}", 8.0 * static_cast<double>(bytes) / weights),
                   report ? fmt::format("{:.5f}", error) : "-"});
  }
  json["linear_bytes"] = all_bytes;
  json["linear_weights"] = all_weights;
  json["share_of_bf16"] = static_cast<double>(all_bytes) / (2.0 * static_cast<double>(all_weights));
  text += (details ? linears : layers).Render(1 << 20);
  text +=
      fmt::format("linears: {}, {:.2f} bits a weight, {:.3f} of bf16\n\n", FormatBytes(all_bytes),
                  8.0 * static_cast<double>(all_bytes) / static_cast<double>(all_weights),
                  static_cast<double>(all_bytes) / (2.0 * static_cast<double>(all_weights)));
  return Status::Ok();
}

}  // namespace edgewise::cli
