#include "compress/compressor.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "compress/base_writer.h"
#include "compress/compress_linear.h"
#include "compress/layer_hessian.h"
#include "compress/partial_layers.h"
#include "io/env.h"
#include "kernels/weight_rows.h"
#include "model/packed_base.h"
#include "model/training_pass.h"
#include "model/weight_table.h"

namespace edgewise::compress {
namespace {

using model::kAllLinears;
using model::LinearKind;

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
        partial_(out_, config_),
        stop_(stop),
        progress_(progress),
        pass_(ctx, model, Longest(windows)) {}

  Result<CompressReport> Run() {
    if (windows_.empty()) return InvalidArgument("no calibration windows");
    if (opt_.policy.layers.size() != config_.layers.size()) {
      return InvalidArgument(fmt::format("the policy has {} layers, the model {}",
                                         opt_.policy.layers.size(), config_.layers.size()));
    }
    const std::string identity = Identity();
    identity_hash_ = fmt::format("xxh3:{:016x}", XXH3_64bits(identity.data(), identity.size()));
    EW_ASSIGN(const bool finished, Finished());
    if (finished) return std::move(report_);
    EW_RETURN_IF_ERROR(partial_.Open(identity));
    EW_ASSIGN(states_, StateStore::Create(windows_, config_.hidden, opt_.memory_bytes,
                                          partial_.path("states.tmp")));
    hidden_ = FloatBuffer(Longest(windows_) * config_.hidden);
    for (size_t w = 0; w < windows_.size(); ++w) {
      EW_RETURN_IF_ERROR(pass_.Embed(windows_[w], hidden_.data()));
      EW_RETURN_IF_ERROR(states_->Write(static_cast<int64_t>(w), hidden_.data()));
    }
    model_.DropCached({model::WeightRole::kEmbedding});
    for (int64_t layer = 0; layer < config_.num_layers(); ++layer) {
      EW_RETURN_IF_ERROR(Layer(layer));
    }
    states_.reset();
    Report(config_.num_layers(), "writing");
    EW_RETURN_IF_ERROR(WritePackedBase(model_, opt_, partial_, HashWindows(windows_),
                                       identity_hash_, out_, report_));
    EW_RETURN_IF_ERROR(partial_.Remove());
    return std::move(report_);
  }

 private:
  static int64_t Longest(const std::vector<TokenBatch>& windows) {
    int64_t n = 1;
    for (const TokenBatch& b : windows) n = std::max(n, b.size());
    return n;
  }
  void Report(int64_t layer, std::string what) const {
    if (progress_) progress_({layer, config_.num_layers(), std::move(what)});
  }
  const std::array<Option, model::kLinearKinds>& OptionsOf(int64_t layer) const {
    return opt_.policy.layers[static_cast<size_t>(layer)];
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

  // Whether OUT holds what this run would make. Error: it holds something else.
  Result<bool> Finished() {
    Env& env = PosixEnv();
    if (!env.Exists(out_)) return false;
    if (!env.IsDirectory(out_)) {
      return InvalidArgument(fmt::format("{} exists and is not a directory", out_));
    }
    if (!env.Exists(JoinPath(out_, model::kPackedFile))) return false;
    const Result<Json> about = ReadJsonFile(JoinPath(out_, "edgewise.json"));
    if (about.ok() && about->is_object() && about->contains("report") &&
        about->value("identity", std::string()) == identity_hash_) {
      EW_ASSIGN(report_, ReportFromJson(about->at("report")).WithContext(out_));
      report_.resumed_layers = config_.num_layers();
      EW_RETURN_IF_ERROR(partial_.Remove());
      return true;
    }
    return InvalidArgument(fmt::format(
        "{} already holds another compressed model; name another output or remove it", out_));
  }

  // Weights of the layer: the model's own until a compressed form takes their place.
  struct Working {
    model::LayerWeights weights;
    std::array<std::vector<float>, model::kLinearKinds> dense;

    void Take(LinearKind kind, std::vector<float> values) {
      const kernels::WeightRef& old = weights[kind].weight;
      dense[Index(kind)] = std::move(values);
      weights[kind].weight =
          kernels::WeightRef::Dense(dense[Index(kind)].data(), old.rows, old.cols);
    }
  };

  Status Layer(int64_t layer) {
    Working working{model_.weights().layers[static_cast<size_t>(layer)], {}};
    if (partial_.Has(layer)) {
      Report(layer, "already done");
      ++report_.resumed_layers;
      EW_RETURN_IF_ERROR(partial_.Load(
          layer, OptionsOf(layer),
          [&](LinearKind kind, std::vector<float> values) {
            working.Take(kind, std::move(values));
          },
          &report_.layers.emplace_back(), &report_.warnings));
    } else {
      Report(layer, "compressing");
      EW_RETURN_IF_ERROR(Compress(layer, working));
    }
    for (size_t w = 0; w < windows_.size(); ++w) {
      EW_RETURN_IF_ERROR(Stopped(layer));
      const auto at = static_cast<int64_t>(w);
      EW_RETURN_IF_ERROR(states_->Read(at, hidden_.data()));
      EW_RETURN_IF_ERROR(
          pass_.ForwardLayer(windows_[w], layer, &working.weights, nullptr, hidden_.data()));
      EW_RETURN_IF_ERROR(states_->Write(at, hidden_.data()));
    }
    return Status::Ok();
  }

  Status Stopped(int64_t layer) const {
    if (stop_ == nullptr || !stop_->load()) return Status::Ok();
    return {StatusCode::kInterrupted,
            fmt::format("stopped in layer {} of {}; run the same command to go on", layer + 1,
                        config_.num_layers())};
  }

  Status Compress(int64_t layer, Working& working) {
    std::array<StoredLinear, model::kLinearKinds> stored;
    for (const std::vector<LinearKind>& group : InputGroups()) {
      const int64_t in = model::ShapeOf(config_, group.front()).in;
      HessianObserver observer(ctx_, group.front(), in);
      for (size_t w = 0; w < windows_.size(); ++w) {
        EW_RETURN_IF_ERROR(Stopped(layer));
        EW_RETURN_IF_ERROR(states_->Read(static_cast<int64_t>(w), hidden_.data()));
        EW_RETURN_IF_ERROR(
            pass_.ForwardLayer(windows_[w], layer, &working.weights, &observer, hidden_.data()));
      }
      const float* h = observer.Finish();
      for (LinearKind kind : group) {
        EW_RETURN_IF_ERROR(Stopped(layer));
        EW_RETURN_IF_ERROR(CompressOne(layer, kind, h, working, stored[Index(kind)])
                               .WithContext(model::LinearPath(layer, kind)));
      }
    }
    EW_RETURN_IF_ERROR(partial_.Save(layer, stored));
    auto& reports = report_.layers.emplace_back();
    for (LinearKind kind : kAllLinears) {
      StoredLinear& s = stored[Index(kind)];
      reports[Index(kind)] = s.report;
      if (!s.warning.empty()) {
        report_.warnings.push_back(model::LinearPath(layer, kind) + ".weight: " + s.warning);
      }
    }
    return Status::Ok();
  }

  Status CompressOne(int64_t layer, LinearKind kind, const float* h, Working& working,
                     StoredLinear& stored) {
    const model::LinearShape shape = model::ShapeOf(config_, kind);
    FloatBuffer w(shape.in * shape.out);
    kernels::WeightRowsToF32(working.weights[kind].weight, 0, shape.out, w.data());
    model_.DropCached({model::WeightRole::kLinear, layer, kind});
    const Option& option = OptionsOf(layer)[Index(kind)];
    EW_ASSIGN(LinearResult r, CompressLinear(ctx_, w.data(), h, shape.out, shape.in, option, opt_));
    stored.warning = std::move(r.warning);
    stored.packed = r.packed;
    if (r.packed) {
      stored.tensor = BytesTensor(std::move(r.matrix));
    } else {
      stored.tensor = F16Tensor(shape.out, shape.in, r.dense.data());
      // What is stored is what later layers must see.
      ConvertToF32(DType::kF16, stored.tensor.view.data, r.dense.data(), shape.out * shape.in);
    }
    stored.report = {option, stored.tensor.view.bytes(), shape.in * shape.out, r.error};
    working.Take(kind, std::move(r.dense));
    return Status::Ok();
  }

  ExecContext& ctx_;
  const model::Model& model_;
  const model::ModelConfig& config_;
  const std::vector<TokenBatch>& windows_;
  const CompressOptions& opt_;
  const std::string out_;
  PartialLayers partial_;
  const std::atomic<bool>* stop_;
  const std::function<void(const CompressProgress&)>& progress_;
  model::TrainingPass pass_;
  std::string identity_hash_;
  std::unique_ptr<StateStore> states_;
  FloatBuffer hidden_;
  CompressReport report_;
};

}  // namespace

Result<CompressReport> CompressModel(ExecContext& ctx, const model::Model& model,
                                     const std::vector<TokenBatch>& windows,
                                     const CompressOptions& options, const std::string& out,
                                     const std::atomic<bool>* stop,
                                     const std::function<void(const CompressProgress&)>& progress) {
  return Compressor(ctx, model, windows, options, out, stop, progress).Run();
}

}  // namespace edgewise::compress
