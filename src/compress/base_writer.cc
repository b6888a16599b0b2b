#include "compress/base_writer.h"

#include <fmt/format.h>

#include <algorithm>

#include "compress/rtn.h"
#include "formats/safetensors_writer.h"
#include "formats/tensor_source.h"
#include "io/env.h"
#include "kernels/packed/packed_matrix.h"
#include "kernels/weight_rows.h"
#include "model/packed_base.h"
#include "model/weight_table.h"

namespace edgewise::compress {
namespace {

using kernels::PackedMatrix;

constexpr int64_t kMaxBesideBytes = int64_t{256} << 20;
constexpr int64_t kBlockWeights = int64_t{1} << 20;  // converted at a time

int64_t RowsAtATime(const kernels::WeightRef& w) {
  return std::clamp<int64_t>(kBlockWeights / std::max<int64_t>(1, w.cols), 1, w.rows);
}

float RoundToF16(float scale) { return kernels::RoundScale(kernels::ScaleType::kF16, scale); }

kernels::PackedFormat FormatOfOther(const kernels::WeightRef& w, int bits, int64_t group) {
  kernels::PackedFormat f;
  f.rows = w.rows;
  f.cols = w.cols;
  f.bits = bits;
  // 8 bits hold a row with one scale; 4 bits need groups.
  f.group = bits == 8 ? 0 : static_cast<int>(group);
  return f;
}

// Rounded to nearest in blocks of rows, so that the matrix is never there in fp32 as a whole.
Result<PackedMatrix> PackRows(const kernels::WeightRef& w, const kernels::PackedFormat& format) {
  const int64_t step = RowsAtATime(w);
  FloatBuffer values(step * w.cols);
  std::vector<int8_t> codes;
  std::vector<float> scales;
  codes.reserve(static_cast<size_t>(w.rows * w.cols));
  for (int64_t row = 0; row < w.rows; row += step) {
    const int64_t n = std::min(step, w.rows - row);
    kernels::WeightRowsToF32(w, row, n, values.data());
    const auto q = RoundToNearest(values.data(), n, w.cols, Grid{format.bits}, format.group,
                                  nullptr, RoundToF16);
    codes.insert(codes.end(), q.codes.begin(), q.codes.end());
    scales.insert(scales.end(), q.scales.begin(), q.scales.end());
  }
  kernels::QuantizedWeights q;
  q.q = codes.data();
  q.scales = scales.data();
  return kernels::PackFromQuantized(format, q);
}

formats::TensorProducer F16Rows(const model::Model& model, const model::WeightId& id) {
  return [&model, id](const formats::ByteSink& sink) -> Status {
    const kernels::WeightRef& w = model::MatrixOf(model.weights(), id);
    const int64_t step = RowsAtATime(w);
    FloatBuffer values(step * w.cols);
    std::vector<std::byte> bytes(static_cast<size_t>(step * w.cols) * 2);
    for (int64_t row = 0; row < w.rows; row += step) {
      const int64_t n = std::min(step, w.rows - row);
      kernels::WeightRowsToF32(w, row, n, values.data());
      ConvertFromF32(DType::kF16, values.data(), bytes.data(), n * w.cols);
      EW_RETURN_IF_ERROR(sink({bytes.data(), static_cast<size_t>(n * w.cols) * 2}));
    }
    model.DropCached(id);
    return Status::Ok();
  };
}

// Everything but the linears: embedding, head, norms, biases.
Status AddOther(const model::Model& model, const model::WeightId& id, const CompressOptions& o,
                formats::SafetensorsWriter& writer, CompressReport& report) {
  const std::string name = model::HfName(model.config(), id);
  const std::vector<int64_t> shape = model::ShapeOf(model.config(), id);
  if (!id.is_matrix()) {
    return writer.Add(name, formats::MakeFloatTensor(shape, model::VectorOf(model.weights(), id)));
  }
  const kernels::WeightRef& w = model::MatrixOf(model.weights(), id);
  const int bits =
      id.role == model::WeightRole::kHead ? o.policy.head_bits : o.policy.embedding_bits;
  if (bits > 8) {
    report.embedding_bytes += w.rows * w.cols * 2;
    return writer.Add(name, DType::kF16, shape, F16Rows(model, id));
  }
  const kernels::PackedFormat format = FormatOfOther(w, bits, o.policy.group);
  EW_ASSIGN(const kernels::PackedLayout layout, kernels::ComputeLayout(format, 0));
  report.embedding_bytes += layout.total;
  return writer.Add(model::PackedName(name), DType::kU8, {layout.total},
                    [&model, id, format](const formats::ByteSink& sink) -> Status {
                      EW_ASSIGN(const PackedMatrix m,
                                PackRows(model::MatrixOf(model.weights(), id), format));
                      model.DropCached(id);
                      return sink(m.bytes());
                    });
}

Status CopyBeside(const std::string& from_dir, const std::string& out) {
  Env& env = PosixEnv();
  if (from_dir.empty()) return Status::Ok();
  for (const char* name :
       {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "special_tokens_map.json", "chat_template.jinja", "LICENSE"}) {
    const std::string from = JoinPath(from_dir, name);
    if (!env.Exists(from)) continue;
    EW_ASSIGN(const std::string text, env.ReadFile(from, kMaxBesideBytes));
    EW_RETURN_IF_ERROR(WriteFileAtomic(env, JoinPath(out, name), text));
  }
  return Status::Ok();
}

}  // namespace

Status WritePackedBase(const model::Model& model, const CompressOptions& options,
                       const PartialLayers& layers, const std::string& calibration_hash,
                       const std::string& identity_hash, const std::string& out,
                       CompressReport& report) {
  const model::ModelConfig& config = model.config();
  formats::SafetensorsWriter writer;
  for (int64_t layer = 0; layer < config.num_layers(); ++layer) {
    EW_RETURN_IF_ERROR(layers.AddTo(writer, layer));
  }
  for (const model::WeightId& id : model::ListWeights(config)) {
    if (id.role == model::WeightRole::kLinear) continue;
    EW_RETURN_IF_ERROR(AddOther(model, id, options, writer, report));
  }
  for (const auto& layer : report.layers) {
    for (const LinearReport& r : layer) report.linear_bytes += r.bytes;
  }
  for (model::LinearKind kind : model::kAllLinears) {
    const model::LinearShape shape = model::ShapeOf(config, kind);
    report.linear_weights += shape.in * shape.out * config.num_layers();
  }
  report.average_bits = options.policy.average_bits(config);
  report.sparsity = options.policy.average_sparsity(config);
  report.file_bytes = writer.FileBytes();
  EW_RETURN_IF_ERROR(CopyBeside(options.source_dir, out));
  for (const auto& [name, text] : options.files) {
    EW_RETURN_IF_ERROR(WriteFileAtomic(PosixEnv(), JoinPath(out, name), text));
  }
  const OrderedJson about = {{"schema", 1},
                             {"kind", "packed base"},
                             {"identity", identity_hash},
                             {"source", options.source_hash},
                             {"calibration", calibration_hash},
                             {"pruner", std::string(PrunerName(options.pruner))},
                             {"quantizer", std::string(QuantizerName(options.quantizer))},
                             {"policy", PolicyToJson(options.policy)},
                             {"report", ReportToJson(report)}};
  EW_RETURN_IF_ERROR(
      WriteFileAtomic(PosixEnv(), JoinPath(out, "edgewise.json"), DumpJson(about, 1) + "\n"));
  return writer.Write(PosixEnv(), JoinPath(out, model::kPackedFile));
}

}  // namespace edgewise::compress
