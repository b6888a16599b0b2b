// The tensors of a GGUF model under their transformers names, in transformers' layout.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>

#include "formats/gguf.h"
#include "formats/tensor_source.h"
#include "kernels/packed/packed_matrix.h"
#include "model/config.h"
#include "model/weight_table.h"

namespace edgewise::model {

// Dense tensors are views into the file; quantised ones are converted to owned floats. For
// architecture `llama` the rows of q and k are put back from the interleaved order of the rotary
// embedding (pairs 2i, 2i + 1) into the halves (i, i + D/2) that the blocks compute with.
class GgufTensors : public formats::TensorSource {
 public:
  GgufTensors(std::shared_ptr<const formats::GgufFile> file, const ModelConfig& config);

  std::vector<std::string> Names() const override;
  bool Has(std::string_view name) const override { return entries_.find(name) != entries_.end(); }
  Result<HostTensor> Get(std::string_view name) const override;
  // The same values in packed form; nothing for a type that has none.
  Result<std::optional<kernels::PackedMatrix>> Packed(std::string_view name) const;
  void Drop(std::string_view name) const override;
  // Tensors of the file that are no weight of the model.
  const std::vector<std::string>& unexpected() const { return unexpected_; }

 private:
  struct Entry {
    const formats::GgufTensor* tensor;
    int64_t interleaved_heads;  // 0: rows are in order
  };

  std::shared_ptr<const formats::GgufFile> file_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<std::string> unexpected_;
};

}  // namespace edgewise::model
