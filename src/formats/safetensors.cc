#include "formats/safetensors.h"

#include <fmt/format.h>

#include "formats/printable.h"

namespace edgewise::formats {

Result<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::Open(const std::string& path,
                                                                     MapMode mode) {
  EW_ASSIGN(auto mapped, MappedFile::Open(path, mode));
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  EW_ASSIGN(file->header_, ParseSafetensors(mapped->bytes()).WithContext(path));
  file->path_ = path;
  file->bytes_ = mapped->bytes();
  file->owner_ = mapped;
  file->mapped_ = mapped;
  for (size_t i = 0; i < file->header_.tensors.size(); ++i) {
    file->index_.emplace(file->header_.tensors[i].name, i);
  }
  return std::shared_ptr<const SafetensorsFile>(std::move(file));
}

Result<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::FromBytes(
    std::span<const std::byte> bytes, std::shared_ptr<const void> owner, std::string name) {
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  EW_ASSIGN(file->header_, ParseSafetensors(bytes).WithContext(name));
  file->path_ = std::move(name);
  file->bytes_ = bytes;
  file->owner_ = std::move(owner);
  for (size_t i = 0; i < file->header_.tensors.size(); ++i) {
    file->index_.emplace(file->header_.tensors[i].name, i);
  }
  return std::shared_ptr<const SafetensorsFile>(std::move(file));
}

const SafetensorsEntry* SafetensorsFile::Find(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &header_.tensors[it->second];
}

std::span<const std::byte> SafetensorsFile::Bytes(const SafetensorsEntry& entry) const {
  return bytes_.subspan(static_cast<size_t>(header_.buffer_offset + entry.begin),
                        static_cast<size_t>(entry.end - entry.begin));
}

std::vector<std::string> SafetensorsFile::Names() const {
  std::vector<std::string> names;
  names.reserve(index_.size());
  for (const auto& [name, i] : index_) names.emplace_back(name);
  return names;
}

Result<HostTensor> SafetensorsFile::Get(std::string_view name) const {
  const SafetensorsEntry* entry = Find(name);
  if (entry == nullptr) {
    return NotFound(fmt::format("{}: there is no tensor {}", path_, Printable(name)));
  }
  if (!entry->dtype) {
    return Unsupported(fmt::format(
        "{}: tensor {} has type {}, which edgewise cannot compute with; convert it to BF16 or F32",
        path_, Printable(name), entry->dtype_name));
  }
  HostTensor tensor;
  tensor.view = {*entry->dtype, entry->shape, Bytes(*entry).data()};
  tensor.owner = owner_;
  return tensor;
}

Result<FileRange> SafetensorsFile::Locate(std::string_view name) const {
  const SafetensorsEntry* entry = Find(name);
  if (entry == nullptr) {
    return NotFound(fmt::format("{}: there is no tensor {}", path_, Printable(name)));
  }
  if (mapped_ == nullptr) return TensorSource::Locate(name);
  return FileRange{path_, static_cast<int64_t>(header_.buffer_offset + entry->begin),
                   static_cast<int64_t>(entry->end - entry->begin)};
}

void SafetensorsFile::Drop(std::string_view name) const {
  const SafetensorsEntry* entry = Find(name);
  if (entry == nullptr || mapped_ == nullptr) return;
  mapped_->Drop(static_cast<size_t>(header_.buffer_offset + entry->begin),
                static_cast<size_t>(entry->end - entry->begin));
}

Result<std::map<std::string, HostTensor, std::less<>>> SafetensorsFile::Tensors() const {
  std::map<std::string, HostTensor, std::less<>> tensors;
  for (const SafetensorsEntry& entry : header_.tensors) {
    EW_ASSIGN(HostTensor tensor, Get(entry.name));
    tensors.emplace(entry.name, std::move(tensor));
  }
  return tensors;
}

}  // namespace edgewise::formats
