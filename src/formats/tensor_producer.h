// How tensors reach a file: in pieces, when the file is written, so that no second copy is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/status.h"
#include "formats/tensor_source.h"
#include "io/env.h"

namespace edgewise::formats {

// Takes the bytes of a tensor, in order, in pieces of any size.
using ByteSink = std::function<Status(std::span<const std::byte>)>;
// Hands the bytes of a tensor to the sink; called once each time a file is written.
using TensorProducer = std::function<Status(const ByteSink&)>;

// The tensor `name` of the source as it is stored, piece by piece; the pages of a piece are given
// back when the sink has it.
TensorProducer StoredTensor(std::shared_ptr<const TensorSource> source, std::string name);

// Appends what the producer hands over. Producing more or less than `bytes` is an error (kInternal)
// that names the tensor.
Status ProduceExactly(std::string_view name, int64_t bytes, const TensorProducer& producer,
                      WritableFile& file);

}  // namespace edgewise::formats
