#include "compress/partial_layers.h"

#include <fmt/format.h>

#include <cstdlib>
#include <map>
#include <memory>

#include "formats/safetensors.h"
#include "io/env.h"
#include "model/packed_base.h"

namespace edgewise::compress {
namespace {

using model::kAllLinears;
using model::LinearKind;

constexpr int64_t kMaxIdentityBytes = int64_t{64} << 20;

size_t Index(LinearKind kind) { return static_cast<size_t>(kind); }

std::string WeightName(int64_t layer, LinearKind kind) {
  return model::LinearPath(layer, kind) + ".weight";
}

}  // namespace

HostTensor BytesTensor(kernels::PackedMatrix matrix) {
  auto owner = std::make_shared<const kernels::PackedMatrix>(std::move(matrix));
  HostTensor t;
  t.view.dtype = DType::kU8;
  t.view.shape = {static_cast<int64_t>(owner->bytes().size())};
  t.view.data = owner->bytes().data();
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

PartialLayers::PartialLayers(std::string out, const model::ModelConfig& config)
    : folder_(JoinPath(out, ".partial")), config_(config) {}

std::string PartialLayers::path(const std::string& name) const { return JoinPath(folder_, name); }

std::string PartialLayers::LayerPath(int64_t layer) const {
  return path(fmt::format("layer-{:05}.safetensors", layer));
}

Status PartialLayers::Open(const std::string& identity) {
  Env& env = PosixEnv();
  EW_RETURN_IF_ERROR(env.CreateDirs(folder_));
  const std::string file = path("identity.json");
  const Result<std::string> earlier = env.ReadFile(file, kMaxIdentityBytes);
  if (earlier.ok() && *earlier == identity) return Status::Ok();
  // Another run's layers are of no use.
  EW_RETURN_IF_ERROR(Remove());
  EW_RETURN_IF_ERROR(env.CreateDirs(folder_));
  return WriteFileAtomic(env, file, identity);
}

bool PartialLayers::Has(int64_t layer) const { return PosixEnv().Exists(LayerPath(layer)); }

Status PartialLayers::Save(int64_t layer,
                           const std::array<StoredLinear, model::kLinearKinds>& linears) const {
  std::map<std::string, std::string> metadata;
  for (LinearKind kind : kAllLinears) {
    const StoredLinear& l = linears[Index(kind)];
    const std::string name = WeightName(layer, kind);
    metadata[name + ".error"] = fmt::format("{}", l.report.error);
    if (!l.warning.empty()) metadata[name + ".warning"] = l.warning;
  }
  formats::SafetensorsWriter writer(std::move(metadata));
  for (LinearKind kind : kAllLinears) {
    const StoredLinear& l = linears[Index(kind)];
    const std::string name = WeightName(layer, kind);
    EW_RETURN_IF_ERROR(writer.Add(l.packed ? model::PackedName(name) : name, l.tensor));
  }
  return writer.Write(PosixEnv(), LayerPath(layer));
}

Status PartialLayers::Load(int64_t layer, const std::array<Option, model::kLinearKinds>& options,
                           const OnLinear& on_linear,
                           std::array<LinearReport, model::kLinearKinds>* reports,
                           std::vector<std::string>* warnings) const {
  EW_ASSIGN(const auto file, formats::SafetensorsFile::Open(LayerPath(layer)));
  for (LinearKind kind : kAllLinears) {
    const model::LinearShape shape = model::ShapeOf(config_, kind);
    const std::string name = WeightName(layer, kind), packed = model::PackedName(name);
    std::vector<float> dense(static_cast<size_t>(shape.in * shape.out));
    LinearReport& r = (*reports)[Index(kind)];
    r.option = options[Index(kind)];
    const auto& metadata = file->metadata();
    if (const auto it = metadata.find(name + ".error"); it != metadata.end()) {
      r.error = std::strtod(it->second.c_str(), nullptr);
    }
    if (const auto it = metadata.find(name + ".warning"); it != metadata.end()) {
      warnings->push_back(name + ": " + it->second);
    }
    const bool is_packed = file->Has(packed);
    EW_ASSIGN(const HostTensor t, file->Get(is_packed ? packed : name));
    r.bytes = t.view.bytes();
    r.weights = shape.in * shape.out;
    if (is_packed) {
      const std::span<const std::byte> bytes(static_cast<const std::byte*>(t.view.data),
                                             static_cast<size_t>(t.view.elements()));
      EW_ASSIGN(const auto matrix, kernels::PackedMatrix::FromBytes(bytes, t.owner));
      if (matrix.rows() != shape.out || matrix.cols() != shape.in) {
        return BadInput(fmt::format("{}: {} has another shape", LayerPath(layer), packed));
      }
      matrix.UnpackRows(0, shape.out, dense.data(), shape.in);
    } else {
      if (t.view.elements() != shape.in * shape.out || !IsFloatDType(t.view.dtype)) {
        return BadInput(fmt::format("{}: {} has another shape", LayerPath(layer), name));
      }
      ConvertToF32(t.view.dtype, t.view.data, dense.data(), shape.in * shape.out);
    }
    on_linear(kind, std::move(dense));
    file->Drop(is_packed ? packed : name);
  }
  return Status::Ok();
}

Status PartialLayers::AddTo(formats::SafetensorsWriter& writer, int64_t layer) const {
  const std::string from = LayerPath(layer);
  EW_ASSIGN(const auto file, formats::SafetensorsFile::Open(from));
  for (const std::string& name : file->Names()) {
    EW_ASSIGN(const HostTensor tensor, file->Get(name));
    EW_RETURN_IF_ERROR(
        writer.Add(name, tensor.view.dtype, tensor.view.shape,
                   [from, name](const formats::ByteSink& sink) -> Status {
                     EW_ASSIGN(const auto opened, formats::SafetensorsFile::Open(from));
                     EW_ASSIGN(const HostTensor t, opened->Get(name));
                     return sink(std::span(static_cast<const std::byte*>(t.view.data),
                                           static_cast<size_t>(t.view.bytes())));
                   }));
  }
  return Status::Ok();
}

Status PartialLayers::Remove() const { return PosixEnv().RemoveAll(folder_); }

}  // namespace edgewise::compress
