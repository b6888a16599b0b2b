#include "compress/compressor.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "compress/compress_linear.h"
#include "formats/safetensors.h"
#include "formats/safetensors_writer.h"
#include "io/env.h"
#include "kernels/matmul.h"
#include "kernels/weight_rows.h"
#include "model/packed_base.h"
#include "model/training_pass.h"
#include "model/weight_table.h"

namespace edgewise::compress {
namespace {

using model::kAllLinears;
using model::LinearKind;

constexpr const char* kPartial = ".partial";
constexpr int64_t kMaxExtraBytes = int64_t{256} << 20;

size_t Index(LinearKind kind) { return static_cast<size_t>(kind); }

// Linears that see the same input, in the order of the forward pass.
const std::vector<std::vector<LinearKind>>& InputGroups() {
  static const std::vector<std::vector<LinearKind>> groups = {
      {LinearKind::kQ, LinearKind::kK, LinearKind::kV},
      {LinearKind::kO},
      {LinearKind::kGate, LinearKind::kUp},
      {LinearKind::kDown}};
  return groups;
}

// H += X^T X of one linear's inputs.
class HessianObserver : public model::LinearObserver {
 public:
  HessianObserver(ExecContext& ctx, LinearKind kind, int64_t n)
      : ctx_(ctx), kind_(kind), n_(n), h_(FloatBuffer::Zeros(n * n)) {}
  void Input(int64_t, LinearKind kind, int64_t rows, const float* x) override {
    if (kind != kind_) return;
    kernels::MatMulTN(ctx_, n_, n_, rows, 1.0f, x, n_, x, n_, h_.data(), n_,
                      kernels::Accumulate::kAdd);
    rows_ += rows;
  }
  // (2 / tokens) X^T X, made exactly symmetric.
  const float* Finish() {
    const float scale = 2.0f / static_cast<float>(std::max<int64_t>(1, rows_));
    for (int64_t i = 0; i < n_; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        const float v = 0.5f * (h_[i * n_ + j] + h_[j * n_ + i]) * scale;
        h_[i * n_ + j] = h_[j * n_ + i] = v;
      }
    }
    return h_.data();
  }

 private:
  ExecContext& ctx_;
  LinearKind kind_;
  int64_t n_, rows_ = 0;
  FloatBuffer h_;
};

HostTensor BytesTensor(std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  HostTensor t;
  t.view.dtype = DType::kU8;
  t.view.shape = {static_cast<int64_t>(bytes.size())};
  t.view.data = bytes.data();
  t.owner = std::move(owner);
  return t;
}

HostTensor F16Tensor(int64_t rows, int64_t cols, const float* values) {
  auto buffer = std::make_shared<AlignedBuffer>(static_cast<size_t>(rows * cols) * 2);
  ConvertFromF32(DType::kF16, values, buffer->data(), rows * cols);
  HostTensor t;
  t.view.dtype = DType::kF16;
  t.view.shape = {rows, cols};
  t.view.data = buffer->data();
  t.owner = std::move(buffer);
  return t;
}

class Compressor {
 public:
  Compressor(ExecContext& ctx, const model::Model& model, const std::vector<TokenBatch>& windows,
             const CompressOptions& options, std::string out, const std::atomic<bool>* stop,
             const std::function<void(const CompressProgress&)>& progress)
      : ctx_(ctx),
        model_(model),
        config_(model.config()),
        windows_(windows),
        opt_(options),
        out_(std::move(out)),
        partial_(JoinPath(out_, kPartial)),
        stop_(stop),
        progress_(progress),
        pass_(ctx, model, Longest(windows)) {}

  Result<CompressReport> Run() {
    if (windows_.empty()) return InvalidArgument("no calibration windows");
    if (opt_.policy.layers.size() != config_.layers.size()) {
      return InvalidArgument(fmt::format("the policy has {} layers, the model {}",
                                         opt_.policy.layers.size(), config_.layers.size()));
    }
    EW_RETURN_IF_ERROR(OpenOutput());
    EW_ASSIGN(states_, StateStore::Create(windows_, config_.hidden, opt_.memory_bytes,
                                          JoinPath(partial_, "states.tmp")));
    hidden_ = FloatBuffer(Longest(windows_) * config_.hidden);
    for (size_t w = 0; w < windows_.size(); ++w) {
      EW_RETURN_IF_ERROR(pass_.Embed(windows_[w], hidden_.data()));
      EW_RETURN_IF_ERROR(states_->Write(static_cast<int64_t>(w), hidden_.data()));
    }
    for (int64_t layer = 0; layer < config_.num_layers(); ++layer) {
      EW_RETURN_IF_ERROR(Layer(layer));
    }
    EW_RETURN_IF_ERROR(Assemble());
    return std::move(report_);
  }

 private:
  static int64_t Longest(const std::vector<TokenBatch>& windows) {
    int64_t n = 1;
    for (const TokenBatch& b : windows) n = std::max(n, b.size());
    return n;
  }
  Env& env() const { return PosixEnv(); }
  std::string LayerPath(int64_t layer) const {
    return JoinPath(partial_, fmt::format("layer-{:05}.safetensors", layer));
  }
  void Report(int64_t layer, std::string what) const {
    if (progress_) progress_({layer, config_.num_layers(), std::move(what)});
  }

  // What a finished layer's bytes depend on.
  std::string Identity() const {
    OrderedJson j = {{"policy", PolicyToJson(opt_.policy)},
                     {"pruner", std::string(PrunerName(opt_.pruner))},
                     {"quantizer", std::string(QuantizerName(opt_.quantizer))},
                     {"percdamp", opt_.percdamp},
                     {"calibration", HashWindows(windows_)},
                     {"source", opt_.source_hash},
                     {"isa", std::string(IsaName(ctx_.isa()))}};
    return DumpJson(j, 1);
  }

  Status OpenOutput() {
    if (env().Exists(out_) && !env().IsDirectory(out_)) {
      return InvalidArgument(fmt::format("{} exists and is not a directory", out_));
    }
    if (env().Exists(JoinPath(out_, model::kPackedFile))) {
      return InvalidArgument(
          fmt::format("{} already holds a compressed model; name another output "
                      "or remove it",
                      out_));
    }
    EW_RETURN_IF_ERROR(env().CreateDirs(partial_));
    const std::string path = JoinPath(partial_, "identity.json"), identity = Identity();
    const Result<std::string> earlier = env().ReadFile(path, kMaxExtraBytes);
    if (earlier.ok() && *earlier == identity) return Status::Ok();
    // Another run's layers are of no use.
    EW_RETURN_IF_ERROR(env().RemoveAll(partial_));
    EW_RETURN_IF_ERROR(env().CreateDirs(partial_));
    return WriteFileAtomic(env(), path, identity);
  }

  // Weights of the layer: the model's own until a compressed form takes their place.
  struct Working {
    model::LayerWeights weights;
    std::array<FloatBuffer, model::kLinearKinds> dense;

    void Take(LinearKind kind, int64_t rows, int64_t cols, const float* values) {
      dense[Index(kind)] = FloatBuffer(rows * cols);
      std::copy_n(values, rows * cols, dense[Index(kind)].data());
      weights[kind].weight = kernels::WeightRef::Dense(dense[Index(kind)].data(), rows, cols);
    }
  };

  Status Layer(int64_t layer) {
    Working working{model_.weights().layers[static_cast<size_t>(layer)], {}};
    EW_ASSIGN(const bool finished, Reload(layer, working));
    if (!finished) {
      Report(layer, "compressing");
      EW_RETURN_IF_ERROR(Compress(layer, working));
    } else {
      Report(layer, "already done");
      ++report_.resumed_layers;
    }
    for (size_t w = 0; w < windows_.size(); ++w) {
      const auto at = static_cast<int64_t>(w);
      EW_RETURN_IF_ERROR(states_->Read(at, hidden_.data()));
      EW_RETURN_IF_ERROR(
          pass_.ForwardLayer(windows_[w], layer, &working.weights, nullptr, hidden_.data()));
      EW_RETURN_IF_ERROR(states_->Write(at, hidden_.data()));
    }
    return Status::Ok();
  }

  // A layer that an interrupted run has finished. False when there is none.
  Result<bool> Reload(int64_t layer, Working& working) {
    if (!env().Exists(LayerPath(layer))) return false;
    EW_ASSIGN(auto file, formats::SafetensorsFile::Open(LayerPath(layer)));
    auto& reports = report_.layers.emplace_back();
    for (LinearKind kind : kAllLinears) {
      const model::LinearShape shape = model::ShapeOf(config_, kind);
      const std::string name = model::LinearPath(layer, kind) + ".weight";
      std::vector<float> dense(static_cast<size_t>(shape.in * shape.out));
      LinearReport& r = reports[Index(kind)];
      r.option = opt_.policy.layers[static_cast<size_t>(layer)][Index(kind)];
      const auto error = file->metadata().find(name + ".error");
      if (error != file->metadata().end()) r.error = std::strtod(error->second.c_str(), nullptr);
      if (file->Has(model::PackedName(name))) {
        EW_ASSIGN(const HostTensor t, file->Get(model::PackedName(name)));
        const std::span<const std::byte> bytes(static_cast<const std::byte*>(t.view.data),
                                               static_cast<size_t>(t.view.elements()));
        EW_ASSIGN(const auto matrix, kernels::PackedMatrix::FromBytes(bytes, t.owner));
        matrix.UnpackRows(0, shape.out, dense.data(), shape.in);
        r.bytes = static_cast<int64_t>(bytes.size());
      } else {
        EW_ASSIGN(const HostTensor t, file->Get(name));
        ConvertToF32(t.view.dtype, t.view.data, dense.data(), shape.in * shape.out);
        r.bytes = t.view.bytes();
      }
      working.Take(kind, shape.out, shape.in, dense.data());
    }
    return true;
  }

  Status Compress(int64_t layer, Working& working) {
    std::map<std::string, std::string> metadata;
    std::vector<std::pair<std::string, HostTensor>> tensors;
    auto& reports = report_.layers.emplace_back();
    for (const std::vector<LinearKind>& group : InputGroups()) {
      const int64_t in = model::ShapeOf(config_, group.front()).in;
      HessianObserver observer(ctx_, group.front(), in);
      for (size_t w = 0; w < windows_.size(); ++w) {
        if (stop_ != nullptr && stop_->load()) {
          return {StatusCode::kInterrupted,
                  fmt::format("stopped in layer {} of {}; run the same command to go on", layer + 1,
                              config_.num_layers())};
        }
        EW_RETURN_IF_ERROR(states_->Read(static_cast<int64_t>(w), hidden_.data()));
        EW_RETURN_IF_ERROR(
            pass_.ForwardLayer(windows_[w], layer, &working.weights, &observer, hidden_.data()));
      }
      const float* h = observer.Finish();
      for (LinearKind kind : group) {
        const model::LinearShape shape = model::ShapeOf(config_, kind);
        const std::string name = model::LinearPath(layer, kind) + ".weight";
        FloatBuffer w(shape.in * shape.out);
        kernels::WeightRowsToF32(working.weights[kind].weight, 0, shape.out, w.data());
        const Option& option = opt_.policy.layers[static_cast<size_t>(layer)][Index(kind)];
        EW_ASSIGN(
            LinearResult r,
            CompressLinear(ctx_, w.data(), h, shape.out, shape.in, option, opt_).WithContext(name));
        if (!r.warning.empty()) report_.warnings.push_back(name + ": " + r.warning);
        LinearReport& linear = reports[Index(kind)];
        linear.option = option;
        linear.error = r.error;
        metadata[name + ".error"] = fmt::format("{}", r.error);
        if (r.packed) {
          auto matrix = std::make_shared<kernels::PackedMatrix>(std::move(r.matrix));
          linear.bytes = static_cast<int64_t>(matrix->bytes().size());
          tensors.emplace_back(model::PackedName(name), BytesTensor(matrix->bytes(), matrix));
        } else {
          tensors.emplace_back(name, F16Tensor(shape.out, shape.in, r.dense.data()));
          linear.bytes = shape.out * shape.in * 2;
          // What is stored is what later layers must see.
          ConvertToF32(DType::kF16, tensors.back().second.view.data, r.dense.data(),
                       shape.out * shape.in);
        }
        working.Take(kind, shape.out, shape.in, r.dense.data());
      }
    }
    formats::SafetensorsWriter writer(std::move(metadata));
    for (auto& [name, tensor] : tensors) EW_RETURN_IF_ERROR(writer.Add(name, std::move(tensor)));
    return writer.Write(env(), LayerPath(layer));
  }

  // One file of all layers, the embedding and head, norms and biases; then the files beside it.
  Status Assemble() {
    Report(config_.num_layers(), "writing");
    formats::SafetensorsWriter writer;
    for (int64_t layer = 0; layer < config_.num_layers(); ++layer) {
      EW_ASSIGN(auto file, formats::SafetensorsFile::Open(LayerPath(layer)));
      for (const std::string& name : file->Names()) {
        EW_ASSIGN(HostTensor tensor, file->Get(name));
        EW_RETURN_IF_ERROR(writer.Add(name, std::move(tensor)));
      }
    }
    for (const model::WeightId& id : model::ListWeights(config_)) {
      if (id.role == model::WeightRole::kLinear) continue;
      EW_RETURN_IF_ERROR(AddOther(id, writer));
    }
    for (const auto& layer : report_.layers) {
      for (const LinearReport& r : layer) report_.linear_bytes += r.bytes;
    }
    for (LinearKind kind : kAllLinears) {
      const model::LinearShape shape = model::ShapeOf(config_, kind);
      report_.linear_weights += shape.in * shape.out * config_.num_layers();
    }
    report_.average_bits = opt_.policy.average_bits(config_);
    report_.sparsity = opt_.policy.average_sparsity(config_);
    report_.file_bytes = writer.FileBytes();
    EW_RETURN_IF_ERROR(CopyBeside());
    const OrderedJson about = {{"schema", 1},
                               {"kind", "packed base"},
                               {"source", opt_.source_hash},
                               {"calibration", HashWindows(windows_)},
                               {"pruner", std::string(PrunerName(opt_.pruner))},
                               {"quantizer", std::string(QuantizerName(opt_.quantizer))},
                               {"policy", PolicyToJson(opt_.policy)},
                               {"report", ReportToJson(report_)}};
    EW_RETURN_IF_ERROR(
        WriteFileAtomic(env(), JoinPath(out_, "edgewise.json"), DumpJson(about, 1) + "\n"));
    // Last: a directory with the packed file is complete.
    EW_RETURN_IF_ERROR(writer.Write(env(), JoinPath(out_, model::kPackedFile)));
    return env().RemoveAll(partial_);
  }

  Status AddOther(const model::WeightId& id, formats::SafetensorsWriter& writer) {
    const std::string name = model::HfName(config_, id);
    const std::vector<int64_t> shape = model::ShapeOf(config_, id);
    if (!id.is_matrix()) {
      return writer.Add(name,
                        formats::MakeFloatTensor(shape, model::VectorOf(model_.weights(), id)));
    }
    const kernels::WeightRef& w = model::MatrixOf(model_.weights(), id);
    const int bits =
        id.role == model::WeightRole::kHead ? opt_.policy.head_bits : opt_.policy.embedding_bits;
    FloatBuffer values(w.rows * w.cols);
    kernels::WeightRowsToF32(w, 0, w.rows, values.data());
    if (bits > 8) {
      HostTensor tensor = F16Tensor(w.rows, w.cols, values.data());
      report_.embedding_bytes += tensor.view.bytes();
      return writer.Add(name, std::move(tensor));
    }
    kernels::PackedFormat format;
    format.rows = w.rows;
    format.cols = w.cols;
    format.bits = bits;
    // 8 bits hold a row with one scale; 4 bits need groups.
    format.group = bits == 8 ? 0 : static_cast<int>(opt_.policy.group);
    EW_ASSIGN(auto packed, kernels::Pack(format, values.data(), w.cols));
    auto matrix = std::make_shared<kernels::PackedMatrix>(std::move(packed));
    report_.embedding_bytes += static_cast<int64_t>(matrix->bytes().size());
    return writer.Add(model::PackedName(name), BytesTensor(matrix->bytes(), matrix));
  }

  Status CopyBeside() {
    if (opt_.source_dir.empty()) return Status::Ok();
    for (const char* name :
         {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
          "special_tokens_map.json", "chat_template.jinja", "LICENSE"}) {
      const std::string from = JoinPath(opt_.source_dir, name);
      if (!env().Exists(from)) continue;
      EW_ASSIGN(const std::string text, env().ReadFile(from, kMaxExtraBytes));
      EW_RETURN_IF_ERROR(WriteFileAtomic(env(), JoinPath(out_, name), text));
    }
    return Status::Ok();
  }

  ExecContext& ctx_;
  const model::Model& model_;
  const model::ModelConfig& config_;
  const std::vector<TokenBatch>& windows_;
  const CompressOptions& opt_;
  const std::string out_, partial_;
  const std::atomic<bool>* stop_;
  const std::function<void(const CompressProgress&)>& progress_;
  model::TrainingPass pass_;
  std::unique_ptr<StateStore> states_;
  FloatBuffer hidden_;
  CompressReport report_;
};

}  // namespace

Result<Pruner> ParsePruner(std::string_view name) {
  for (Pruner p : {Pruner::kSparseGpt, Pruner::kWanda, Pruner::kMagnitude}) {
    if (PrunerName(p) == name) return p;
  }
  return InvalidArgument(
      fmt::format("'{}' is not a pruner; known: sparsegpt, wanda, magnitude", name));
}

std::string_view PrunerName(Pruner pruner) {
  return pruner == Pruner::kSparseGpt ? "sparsegpt"
         : pruner == Pruner::kWanda   ? "wanda"
                                      : "magnitude";
}

Result<Quantizer> ParseQuantizer(std::string_view name) {
  if (name == "gptq") return Quantizer::kGptq;
  if (name == "rtn") return Quantizer::kRtn;
  return InvalidArgument(fmt::format("'{}' is not a quantizer; known: gptq, rtn", name));
}

std::string_view QuantizerName(Quantizer quantizer) {
  return quantizer == Quantizer::kGptq ? "gptq" : "rtn";
}

Result<CompressReport> CompressModel(ExecContext& ctx, const model::Model& model,
                                     const std::vector<TokenBatch>& windows,
                                     const CompressOptions& options, const std::string& out,
                                     const std::atomic<bool>* stop,
                                     const std::function<void(const CompressProgress&)>& progress) {
  return Compressor(ctx, model, windows, options, out, stop, progress).Run();
}

OrderedJson ReportToJson(const CompressReport& r) {
  OrderedJson layers = OrderedJson::array();
  for (const auto& layer : r.layers) {
    OrderedJson linears;
    int64_t bytes = 0;
    double error = 0;
    for (LinearKind kind : kAllLinears) {
      const LinearReport& l = layer[Index(kind)];
      bytes += l.bytes;
      error = std::max(error, l.error);
      linears[std::string(model::LinearName(kind))] = {{"bits", l.option.bits},
                                                       {"sparsity", l.option.sparsity},
                                                       {"bytes", l.bytes},
                                                       {"error", l.error}};
    }
    layers.push_back({{"bytes", bytes}, {"error", error}, {"linears", std::move(linears)}});
  }
  return {{"layers", std::move(layers)},
          {"linear_bytes", r.linear_bytes},
          {"embedding_bytes", r.embedding_bytes},
          {"bytes", r.linear_bytes + r.embedding_bytes},
          {"file_bytes", r.file_bytes},
          {"average_bits", r.average_bits},
          {"sparsity", r.sparsity},
          {"bits_per_weight", r.linear_weights > 0 ? 8.0 * static_cast<double>(r.linear_bytes) /
                                                         static_cast<double>(r.linear_weights)
                                                   : 0.0},
          {"resumed_layers", r.resumed_layers},
          {"warnings", r.warnings}};
}

}  // namespace edgewise::compress
