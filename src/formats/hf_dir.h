// Models by name: a Hugging Face directory, a GGUF file, or a hub id in the local cache.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "formats/safetensors.h"
#include "formats/safetensors_writer.h"
#include "formats/tensor_source.h"
#include "io/env.h"

namespace edgewise::formats {

struct ModelLocation {
  enum class Kind { kHfDirectory, kGguf };
  Kind kind = Kind::kHfDirectory;
  std::string path;  // the directory (a snapshot for hub ids) or the file
};

// Where downloaded models lie: $HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub.
std::string HubCacheDir();

// `name`: a directory with config.json, a .gguf file, or "org/name" (also "org/name@revision")
// already in `hub_cache`. Nothing is downloaded. Error: what was looked for and where.
Result<ModelLocation> ResolveModel(const std::string& name,
                                   const std::string& hub_cache = HubCacheDir());

// The weights of a directory: model.safetensors, or the shards of model.safetensors.index.json.
class ShardedTensors : public TensorSource {
 public:
  // Errors: no weights (pytorch_model.bin is never read; the message names the conversion), a shard
  // name that is not a plain file name, a missing shard, a mapped tensor that its shard lacks.
  static Result<std::shared_ptr<const ShardedTensors>> Open(const std::string& directory,
                                                            MapMode mode = MapMode::kMap);

  std::vector<std::string> Names() const override;
  bool Has(std::string_view name) const override;
  Result<HostTensor> Get(std::string_view name) const override;
  Result<FileRange> Locate(std::string_view name) const override;
  void Drop(std::string_view name) const override;

  const std::vector<std::shared_ptr<const SafetensorsFile>>& files() const { return files_; }
  // Harmless oddities worth telling, for example tensors that the index does not mention.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  ShardedTensors() = default;
  static Result<std::shared_ptr<const ShardedTensors>> OpenIndexed(const std::string& directory,
                                                                   MapMode mode);

  std::vector<std::shared_ptr<const SafetensorsFile>> files_;
  std::map<std::string, size_t, std::less<>> file_of_;
  std::vector<std::string> warnings_;
};

// Writes a model directory: shards and index (or one model.safetensors when it all fits in one),
// config.json, and whatever other small files are handed in.
class HfDirWriter {
 public:
  // config_json is written as it is. Shards hold at most `max_shard_bytes` of tensors, save for a
  // single tensor that is larger by itself.
  HfDirWriter(std::string config_json, int64_t max_shard_bytes = int64_t{5} * 1000 * 1000 * 1000);

  // Tensors go to shards in the order added.
  Status Add(std::string name, DType dtype, std::vector<int64_t> shape, TensorProducer producer);
  Status Add(std::string name, HostTensor tensor);
  // Another file of the directory, for example tokenizer.json; `name` is a plain file name.
  Status AddFile(std::string name, std::string contents);

  // Creates the directory when absent; every file is written atomically, config.json last, so that
  // a directory with config.json is complete. Weights of an earlier writer that would be taken for
  // part of this model are removed.
  Status Write(Env& env, const std::string& directory) const;

 private:
  SafetensorsWriter& ShardFor(int64_t bytes);
  Status Note(const std::string& name, std::span<const int64_t> shape);

  std::string config_json_;
  int64_t max_shard_bytes_;
  std::vector<SafetensorsWriter> shards_;
  std::map<std::string, size_t> shard_of_;
  int64_t total_parameters_ = 0;
  std::map<std::string, std::string> files_;
};

}  // namespace edgewise::formats
