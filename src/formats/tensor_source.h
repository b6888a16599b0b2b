// Named tensors from somewhere: one safetensors file, the shards of a model directory, memory.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace edgewise::formats {

// Where a tensor's bytes lie.
struct FileRange {
  std::string path;
  int64_t offset = 0, bytes = 0;
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual std::vector<std::string> Names() const = 0;  // sorted
  virtual bool Has(std::string_view name) const = 0;
  // The tensor as stored. It keeps its storage alive by itself: the source may be destroyed first.
  // `view.data` may be misaligned for its type. Errors: kNotFound, or kUnsupported for a type that
  // the format knows and this program does not compute with; both name the file and the tensor.
  virtual Result<HostTensor> Get(std::string_view name) const = 0;
  // The file that holds the tensor as stored, for reading it without mapping. Error: kUnsupported
  // for sources without files, kNotFound.
  virtual Result<FileRange> Locate(std::string_view name) const;
  // Tells the system that the tensor's pages are not needed in memory for now.
  virtual void Drop(std::string_view name) const { (void)name; }
};

// Tensors that are already in memory.
class MemoryTensorSource : public TensorSource {
 public:
  MemoryTensorSource() = default;
  explicit MemoryTensorSource(std::map<std::string, HostTensor, std::less<>> tensors)
      : tensors_(std::move(tensors)) {}
  void Add(std::string name, HostTensor tensor) {
    tensors_.insert_or_assign(std::move(name), std::move(tensor));
  }

  std::vector<std::string> Names() const override;
  bool Has(std::string_view name) const override { return tensors_.find(name) != tensors_.end(); }
  Result<HostTensor> Get(std::string_view name) const override;

 private:
  std::map<std::string, HostTensor, std::less<>> tensors_;
};

// A new owned tensor of floats copied from `values` (row-major, product of `shape` of them).
HostTensor MakeFloatTensor(std::vector<int64_t> shape, const float* values);

}  // namespace edgewise::formats
