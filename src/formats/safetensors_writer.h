// Writes safetensors files in the order of the reference writer (type in descending order, then
// name), header padded so that the buffer starts at a multiple of 8.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "formats/tensor_producer.h"
#include "io/env.h"
#include "tensor/tensor.h"

namespace edgewise::formats {

class SafetensorsWriter {
 public:
  // {"format": "pt"} is always written (older readers refuse a file without it) unless overridden.
  explicit SafetensorsWriter(std::map<std::string, std::string> metadata = {});

  // Streams: nothing is kept in memory but the description. Errors: duplicate or illegal name,
  // shape or size beyond the limits of the format.
  Status Add(std::string name, DType dtype, std::vector<int64_t> shape, TensorProducer producer);
  // Keeps the tensor alive until the writer is gone. The data must be in `tensor.view.data`.
  Status Add(std::string name, HostTensor tensor);

  int64_t tensor_bytes() const { return tensor_bytes_; }
  size_t tensor_count() const { return tensors_.size(); }
  // Size of the file to be written.
  int64_t FileBytes() const;

  // The whole file, into an open file. A producer that hands over too much or too little is an
  // error (kInternal) that names the tensor.
  Status WriteTo(WritableFile& file) const;
  // Temporary file in the same directory, fsync, rename, fsync of the directory: after a crash or
  // an error `path` holds either what it held before or the whole new file.
  Status Write(Env& env, const std::string& path) const;

 private:
  struct Tensor {
    std::string name;
    DType dtype;
    std::vector<int64_t> shape;
    int64_t bytes;
    TensorProducer producer;
  };
  std::vector<const Tensor*> Sorted() const;
  std::string Header(const std::vector<const Tensor*>& order) const;

  std::map<std::string, std::string> metadata_;
  std::map<std::string, Tensor> tensors_;
  int64_t tensor_bytes_ = 0;
};

}  // namespace edgewise::formats
