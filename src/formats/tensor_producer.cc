#include "formats/tensor_producer.h"

#include <fmt/format.h>

#include "formats/printable.h"

namespace edgewise::formats {

Status ProduceExactly(std::string_view name, int64_t bytes, const TensorProducer& producer,
                      WritableFile& file) {
  int64_t done = 0;
  const auto sink = [&](std::span<const std::byte> piece) -> Status {
    const auto n = static_cast<int64_t>(piece.size());
    if (n > bytes - done) {
      return Internal(
          fmt::format("tensor {}: more than its {} bytes were produced", Printable(name), bytes));
    }
    done += n;
    return file.Append(piece);
  };
  if (bytes != 0) EW_RETURN_IF_ERROR(producer(sink));
  if (done != bytes) {
    return Internal(
        fmt::format("tensor {}: {} of its {} bytes were produced", Printable(name), done, bytes));
  }
  return Status::Ok();
}

}  // namespace edgewise::formats
