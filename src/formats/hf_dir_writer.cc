#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/checked.h"
#include "formats/hf_dir.h"
#include "formats/printable.h"
#include "io/json.h"

namespace edgewise::formats {
namespace {

// Weights that transformers and edgewise would take for part of a model in this directory.
bool IsModelWeights(std::string_view name) {
  constexpr std::string_view kStart = "model", kEnd = ".safetensors";
  return name == "model.safetensors.index.json" ||
         (name.size() >= kStart.size() + kEnd.size() && name.substr(0, kStart.size()) == kStart &&
          name.substr(name.size() - kEnd.size()) == kEnd);
}

}  // namespace

HfDirWriter::HfDirWriter(std::string config_json, int64_t max_shard_bytes)
    : config_json_(std::move(config_json)),
      max_shard_bytes_(std::max<int64_t>(1, max_shard_bytes)) {}

SafetensorsWriter& HfDirWriter::ShardFor(int64_t bytes) {
  const bool full = shards_.empty() || (shards_.back().tensor_count() != 0 &&
                                        shards_.back().tensor_bytes() > max_shard_bytes_ - bytes);
  if (full) shards_.emplace_back();
  return shards_.back();
}

Status HfDirWriter::Note(const std::string& name, std::span<const int64_t> shape) {
  if (!shard_of_.emplace(name, shards_.size() - 1).second) {
    return InvalidArgument(fmt::format("tensor {} was added twice", Printable(name)));
  }
  total_parameters_ += CheckedProduct(shape).value_or(0);
  return Status::Ok();
}

Status HfDirWriter::Add(std::string name, DType dtype, std::vector<int64_t> shape,
                        TensorProducer producer) {
  const std::optional<int64_t> elements = CheckedProduct(shape);
  const std::optional<int64_t> bytes =
      elements ? CheckedMul(*elements, static_cast<int64_t>(DTypeBytes(dtype))) : std::nullopt;
  if (!bytes) {
    return InvalidArgument(
        fmt::format("tensor {}: bad shape {}", Printable(name), ShapeText(shape)));
  }
  SafetensorsWriter& shard = ShardFor(*bytes);
  EW_RETURN_IF_ERROR(Note(name, shape));
  return shard.Add(std::move(name), dtype, std::move(shape), std::move(producer));
}

Status HfDirWriter::Add(std::string name, HostTensor tensor) {
  SafetensorsWriter& shard = ShardFor(tensor.view.bytes());
  EW_RETURN_IF_ERROR(Note(name, tensor.view.shape));
  return shard.Add(std::move(name), std::move(tensor));
}

Status HfDirWriter::AddFile(std::string name, std::string contents) {
  if (name.empty() || name.find('/') != std::string::npos || name[0] == '.' ||
      name == "config.json" || IsModelWeights(name)) {
    return InvalidArgument(
        fmt::format("{} is no name for an extra file of a model directory", Printable(name)));
  }
  files_.insert_or_assign(std::move(name), std::move(contents));
  return Status::Ok();
}

Status HfDirWriter::Write(Env& env, const std::string& directory) const {
  EW_RETURN_IF_ERROR(CreateDirsSynced(env, directory));
  const std::string config_path = JoinPath(directory, "config.json");
  if (env.Exists(config_path)) EW_RETURN_IF_ERROR(env.RemoveAll(config_path));

  std::set<std::string> written;
  int64_t total_bytes = 0;
  std::vector<std::string> shard_names;
  for (size_t i = 0; i < shards_.size(); ++i) {
    shard_names.push_back(shards_.size() == 1 ? std::string("model.safetensors")
                                              : fmt::format("model-{:05}-of-{:05}.safetensors",
                                                            i + 1, shards_.size()));
    EW_RETURN_IF_ERROR(shards_[i].Write(env, JoinPath(directory, shard_names[i])));
    written.insert(shard_names[i]);
    total_bytes += shards_[i].tensor_bytes();
  }
  if (shards_.size() > 1) {
    Json index;
    index["metadata"] = {{"total_parameters", total_parameters_}, {"total_size", total_bytes}};
    Json& map = index["weight_map"] = Json::object();
    for (const auto& [name, shard] : shard_of_) map[name] = shard_names[shard];
    const std::string name = "model.safetensors.index.json";
    EW_RETURN_IF_ERROR(WriteFileAtomic(env, JoinPath(directory, name), DumpJson(index, 2) + "\n"));
    written.insert(name);
  }
  for (const auto& [name, contents] : files_) {
    EW_RETURN_IF_ERROR(WriteFileAtomic(env, JoinPath(directory, name), contents));
  }
  EW_ASSIGN(const auto present, env.ListDir(directory));
  for (const std::string& name : present) {
    if (IsModelWeights(name) && written.count(name) == 0) {
      EW_RETURN_IF_ERROR(env.RemoveAll(JoinPath(directory, name)));
    }
  }
  return WriteFileAtomic(env, config_path, config_json_);
}

}  // namespace edgewise::formats
