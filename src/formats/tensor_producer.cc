#include "formats/tensor_producer.h"

#include <fmt/format.h>

#include <algorithm>

#include "formats/printable.h"

namespace edgewise::formats {

TensorProducer StoredTensor(std::shared_ptr<const TensorSource> source, std::string name) {
  return [source = std::move(source), name = std::move(name)](const ByteSink& sink) -> Status {
    constexpr size_t kPiece = size_t{4} << 20;
    EW_ASSIGN(const HostTensor tensor, source->Get(name));
    std::span<const std::byte> rest(static_cast<const std::byte*>(tensor.view.data),
                                    static_cast<size_t>(tensor.view.bytes()));
    while (!rest.empty()) {
      EW_RETURN_IF_ERROR(sink(rest.first(std::min(kPiece, rest.size()))));
      source->Drop(name);
      rest = rest.subspan(std::min(kPiece, rest.size()));
    }
    return Status::Ok();
  };
}

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
