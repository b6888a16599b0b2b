// The finished layers of a compression under way: OUT/.partial holds one file per layer, so that an
// interrupted run goes on after the last of them and ends in the same bytes.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "compress/report.h"
#include "formats/safetensors_writer.h"
#include "kernels/packed/packed_matrix.h"
#include "model/config.h"

namespace edgewise::compress {

// One linear of a compressed layer: packed, or (16 bits) its values in fp16.
struct StoredLinear {
  LinearReport report;
  std::string warning;  // "" or what happened
  HostTensor tensor;
  bool packed = false;
};

HostTensor BytesTensor(kernels::PackedMatrix matrix);  // u8 [bytes]
HostTensor F16Tensor(int64_t rows, int64_t cols, const float* values);

class PartialLayers {
 public:
  PartialLayers(std::string out, const model::ModelConfig& config);

  // Makes the folder; what a run of another identity left there is removed.
  Status Open(const std::string& identity);
  bool Has(int64_t layer) const;
  // Atomic: after a crash the layer is there whole or not at all.
  Status Save(int64_t layer, const std::array<StoredLinear, model::kLinearKinds>& linears) const;

  using OnLinear = std::function<void(model::LinearKind, std::vector<float> dense)>;
  // The values of every linear as fp32 [out, in], one after the other, and what was reported.
  // `options`: of the policy that the layer was made by.
  Status Load(int64_t layer, const std::array<Option, model::kLinearKinds>& options,
              const OnLinear& on_linear, std::array<LinearReport, model::kLinearKinds>* reports,
              std::vector<std::string>* warnings) const;
  // Adds the layer's tensors to a file; they are read when it is written, one at a time.
  Status AddTo(formats::SafetensorsWriter& writer, int64_t layer) const;
  Status Remove() const;

  std::string path(const std::string& name) const;  // of a further file in the folder

 private:
  std::string LayerPath(int64_t layer) const;

  const std::string folder_;
  const model::ModelConfig& config_;
};

}  // namespace edgewise::compress
