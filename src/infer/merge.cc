#include "infer/merge.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "infer/dense_export.h"
#include "infer/export_memory.h"
#include "infer/logit_error.h"
#include "io/env.h"
#include "io/json.h"
#include "model/save.h"
#include "model/weight_table.h"

namespace edgewise::infer {
namespace {

// One matrix of the base plus scale B A, handed over in blocks of rows; their pages are given back.
formats::TensorProducer MergedMatrix(std::shared_ptr<const formats::TensorSource> source,
                                     const std::string& name, const model::LoraSlot* slot,
                                     DType dtype) {
  return [source = std::move(source), name, slot, dtype](const formats::ByteSink& sink) -> Status {
    EW_ASSIGN(const HostTensor base, source->Get(name));
    const int64_t rows = base.view.shape[0], cols = base.view.shape[1];
    const int64_t block = std::max<int64_t>(1, std::min(rows, (int64_t{1} << 18) / cols));
    const auto element = static_cast<int64_t>(DTypeBytes(base.view.dtype));
    std::vector<float> values(static_cast<size_t>(block * cols));
    std::vector<std::byte> bytes(values.size() * DTypeBytes(dtype));
    for (int64_t begin = 0; begin < rows; begin += block) {
      const int64_t n = std::min(block, rows - begin);
      ConvertToF32(base.view.dtype,
                   static_cast<const std::byte*>(base.view.data) + begin * cols * element,
                   values.data(), n * cols);
      source->Drop(name);
      if (slot != nullptr) model::AddAdapter(*slot, begin, n, cols, values.data());
      ConvertFromF32(dtype, values.data(), bytes.data(), n * cols);
      EW_RETURN_IF_ERROR(
          sink(std::span(bytes.data(), static_cast<size_t>(n * cols) * DTypeBytes(dtype))));
    }
    return Status::Ok();
  };
}

// Removes what was written unless the merge succeeded.
class Scratch {
 public:
  explicit Scratch(std::string path) : path_(std::move(path)) {}
  ~Scratch() {
    if (!path_.empty()) (void)PosixEnv().RemoveAll(path_);
  }
  void Keep() { path_.clear(); }

 private:
  std::string path_;
};

}  // namespace

double DefaultMergeError(DType dtype) {
  const double u = dtype == DType::kBF16 ? 0x1p-9 : dtype == DType::kF16 ? 0x1p-12 : 0x1p-24;
  return std::max(32 * u, 1e-4);
}

namespace {

using Slots = std::map<std::string, const model::LoraSlot*>;

// What is merged, and what the written types let one expect of the logits.
struct Merged {
  MergeReport report;
  std::set<std::string> dtypes;
  double limit = 0;
};

// The tensors of a Hugging Face directory; those without an adapter go over as they are.
Status AddTensors(const std::string& path, const Slots& slots, std::optional<DType> wanted,
                  formats::HfDirWriter& writer, Merged& m) {
  EW_ASSIGN(const auto tensors, formats::ShardedTensors::Open(path));
  for (const std::string& name : tensors->Names()) {
    EW_ASSIGN(HostTensor tensor, tensors->Get(name));
    const auto slot = slots.find(name);
    const bool matrix = tensor.view.shape.size() == 2 && IsFloatDType(tensor.view.dtype);
    const DType dtype = wanted && matrix ? *wanted : tensor.view.dtype;
    ++m.report.tensors;
    m.report.bytes += tensor.view.elements() * static_cast<int64_t>(DTypeBytes(dtype));
    if (slot != slots.end() && !matrix) return BadInput(name + " is not a matrix of floats");
    if (slot == slots.end() && dtype == tensor.view.dtype) {
      EW_RETURN_IF_ERROR(writer.Add(name, dtype, std::move(tensor.view.shape),
                                    formats::StoredTensor(tensors, name)));
      continue;
    }
    if (slot != slots.end()) ++m.report.merged;
    m.dtypes.emplace(DTypeName(dtype));
    m.limit = std::max(m.limit, DefaultMergeError(dtype));
    EW_RETURN_IF_ERROR(writer.Add(
        name, dtype, std::move(tensor.view.shape),
        MergedMatrix(tensors, name, slot == slots.end() ? nullptr : slot->second, dtype)));
  }
  return Status::Ok();
}

// The weights of a model whose files hold no plain tensors.
Status AddWeights(const model::Model& model, const Slots& slots, std::optional<DType> wanted,
                  formats::HfDirWriter& writer, Merged& m) {
  for (const model::WeightId& id : model::ListWeights(model.config())) {
    const std::string name = model::HfName(model.config(), id);
    const DType dtype = DenseTypeOf(model, id, wanted);
    const auto slot = slots.find(name);
    if (slot != slots.end()) ++m.report.merged;
    if (id.is_matrix()) {
      m.dtypes.emplace(DTypeName(dtype));
      m.limit = std::max(m.limit, DefaultMergeError(dtype));
    }
    const std::vector<int64_t> shape = model::ShapeOf(model.config(), id);
    int64_t elements = 1;
    for (int64_t d : shape) elements *= d;
    ++m.report.tensors;
    m.report.bytes += elements * static_cast<int64_t>(DTypeBytes(dtype));
    EW_RETURN_IF_ERROR(writer.Add(
        name, dtype, shape,
        model::WeightProducer(model, id, dtype, slot == slots.end() ? nullptr : slot->second)));
  }
  return Status::Ok();
}

}  // namespace

Result<MergeReport> MergeToHfDirectory(ExecContext& ctx, const formats::ModelLocation& base,
                                       const std::string& adapter_dir, const std::string& out,
                                       const MergeOptions& options) {
  Env& env = PosixEnv();
  if (env.Exists(out) && !options.overwrite) {
    return InvalidArgument(out + " exists already; choose another directory or --overwrite");
  }
  const bool plain = !NeedsDenseExport(base);
  EW_ASSIGN(const auto model, model::Model::Load(base.path, {.keep_quant = true}));
  EW_ASSIGN(const model::LoraAdapter adapter, model::LoadPeftAdapter(adapter_dir, model->config()));
  Slots slots;
  for (const model::WeightId& id : model::ListWeights(model->config())) {
    if (id.role != model::WeightRole::kLinear) continue;
    const model::LoraSlot* slot = adapter.slot(id.layer, id.kind);
    if (slot != nullptr) slots[model::HfName(model->config(), id)] = slot;
  }

  EW_ASSIGN(std::string config, DenseConfig(base, *model, options.dtype));
  formats::HfDirWriter writer(std::move(config));
  Merged m;
  // Of a packed base the few matrices in half precision become floats like all others.
  std::optional<DType> dtype = options.dtype;
  if (!plain && base.kind == formats::ModelLocation::Kind::kHfDirectory) {
    dtype = dtype.value_or(DType::kF32);
  }
  EW_RETURN_IF_ERROR(plain ? AddTensors(base.path, slots, dtype, writer, m)
                           : AddWeights(*model, slots, dtype, writer, m));
  MergeReport& report = m.report;
  if (report.merged != static_cast<int64_t>(slots.size())) {
    return BadInput(
        fmt::format("{}: {} of the adapter's {} matrices are not stored under their "
                    "own names",
                    base.path, slots.size() - static_cast<size_t>(report.merged), slots.size()));
  }
  EW_RETURN_IF_ERROR(AddCompanionFiles(base, writer));

  const ProbedModel want{.path = base.path, .lora = &adapter};
  const int64_t comparing = LogitErrorBytes(ctx, *model, want, ProbeBytesOf(*model),
                                            DenseProbeBytes(*model, model->config(), dtype));
  EW_ASSIGN(report.predicted_peak_bytes,
            FitExport(options.memory_bytes, std::max(WritingBytes(), comparing), kDTypeAdvice));

  std::string target = out;
  while (target.size() > 1 && target.back() == '/') target.pop_back();
  const std::string temporary = target + ".merging";
  Scratch scratch(temporary);
  EW_RETURN_IF_ERROR(env.RemoveAll(temporary));
  EW_RETURN_IF_ERROR(writer.Write(env, temporary));

  EW_ASSIGN(report.error, LogitError(ctx, want, {temporary}));
  report.max_error = options.max_error >= 0 ? options.max_error : m.limit;
  for (const std::string& d : m.dtypes) report.dtype += (report.dtype.empty() ? "" : "/") + d;
  if (report.error > report.max_error) {
    return BadInput(fmt::format(
        "the merged model's logits differ from the adapter's by {:.2e} of their size, more than "
        "{:.2e}; write it in a finer type (--dtype fp32) or accept more (--max-error)",
        report.error, report.max_error));
  }
  if (options.overwrite) EW_RETURN_IF_ERROR(env.RemoveAll(target));
  EW_RETURN_IF_ERROR(env.Rename(temporary, target));
  scratch.Keep();
  const std::string parent = DirName(target);
  EW_RETURN_IF_ERROR(env.SyncDir(parent.empty() ? "." : parent));
  return report;
}

}  // namespace edgewise::infer
