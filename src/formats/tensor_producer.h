// How tensors reach a file: in pieces, when the file is written, so that no second copy is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/status.h"
#include "io/env.h"

namespace edgewise::formats {

// Takes the bytes of a tensor, in order, in pieces of any size.
using ByteSink = std::function<Status(std::span<const std::byte>)>;
// Hands the bytes of a tensor to the sink; called once each time a file is written.
using TensorProducer = std::function<Status(const ByteSink&)>;

// Appends what the producer hands over. Producing more or less than `bytes` is an error (kInternal)
// that names the tensor.
Status ProduceExactly(std::string_view name, int64_t bytes, const TensorProducer& producer,
                      WritableFile& file);

}  // namespace edgewise::formats
