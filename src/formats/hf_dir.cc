#include "formats/hf_dir.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "formats/printable.h"
#include "io/json.h"

namespace edgewise::formats {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// Whether a name out of a file may be joined to a directory: it must not lead out of it.
bool IsPlainFileName(std::string_view name) {
  if (name.empty() || name == "." || name == ".." || name.size() > 255) return false;
  return std::none_of(name.begin(), name.end(), [](char c) {
    return c == '/' || c == '\\' || c == ':' || static_cast<unsigned char>(c) < 0x20;
  });
}

Status NoWeights(const std::string& directory) {
  Env& env = PosixEnv();
  for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (env.Exists(JoinPath(directory, pickle))) {
      return Unsupported(fmt::format(
          "{0} holds its weights as {1}, a Python pickle, which can run code when read; edgewise "
          "reads safetensors only. Convert it once: python -c \"from transformers import "
          "AutoModelForCausalLM as M; M.from_pretrained('{0}').save_pretrained('{0}', "
          "safe_serialization=True)\"",
          directory, pickle));
    }
  }
  if (env.Exists(JoinPath(directory, "adapter_model.safetensors"))) {
    return BadInput(directory +
                    " holds an adapter, not a model: name its base model and give this directory "
                    "as the adapter");
  }
  return NotFound(fmt::format("{} holds neither {} nor {}", directory, kSingleFile, kIndexFile));
}

std::string Trimmed(std::string text) {
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
  return text;
}

// A directory with config.json, or with one GGUF file and nothing else to run.
Result<ModelLocation> LocateInDirectory(const std::string& directory) {
  Env& env = PosixEnv();
  if (env.Exists(JoinPath(directory, "config.json"))) {
    return ModelLocation{ModelLocation::Kind::kHfDirectory, directory};
  }
  EW_ASSIGN(const auto names, env.ListDir(directory));
  std::vector<std::string> ggufs;
  for (const std::string& name : names) {
    if (EndsWith(name, ".gguf")) ggufs.push_back(name);
  }
  if (ggufs.size() == 1) {
    return ModelLocation{ModelLocation::Kind::kGguf, JoinPath(directory, ggufs[0])};
  }
  if (ggufs.size() > 1) {
    return BadInput(fmt::format("{} holds {} GGUF files; name the one to use, for example {}",
                                directory, ggufs.size(), JoinPath(directory, ggufs[0])));
  }
  if (env.Exists(JoinPath(directory, "adapter_config.json"))) {
    return BadInput(directory + " holds an adapter, not a model: name its base model instead");
  }
  return NotFound(directory + " is not a model directory: it has no config.json");
}

bool LooksLikeHubId(std::string_view name) {
  if (name.empty() || name.front() == '.' || name.front() == '/' || EndsWith(name, "/")) {
    return false;
  }
  if (std::count(name.begin(), name.end(), '/') > 1 || name.find("..") != name.npos) return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_' || c == '/';
  });
}

// The snapshot directory of a revision (a branch, a tag or a commit).
Result<std::string> FindSnapshot(const std::string& repo, const std::string& revision) {
  Env& env = PosixEnv();
  const std::string snapshots = JoinPath(repo, "snapshots");
  if (!IsPlainFileName(revision)) {
    return InvalidArgument(fmt::format("{} is no revision", Printable(revision)));
  }
  const std::string ref = JoinPath(JoinPath(repo, "refs"), revision);
  std::string commit = revision;
  if (env.Exists(ref)) {
    EW_ASSIGN(commit, env.ReadFile(ref, 4096));
    commit = Trimmed(std::move(commit));
    if (!IsPlainFileName(commit)) {
      return BadInput(fmt::format("{} does not name a commit", ref));
    }
  }
  const std::string path = JoinPath(snapshots, commit);
  if (env.IsDirectory(path)) return path;
  auto present = env.ListDir(snapshots);
  if (present.ok() && present->size() == 1 && revision == "main") {
    return JoinPath(snapshots, present->front());
  }
  return NotFound(fmt::format("{} has no snapshot of revision {}", repo, revision));
}

}  // namespace

std::string HubCacheDir() {
  const auto variable = [](const char* name) -> std::string {
    const char* value = std::getenv(name);
    return value == nullptr ? "" : value;
  };
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (std::string dir = variable(name); !dir.empty()) return dir;
  }
  if (const std::string home = variable("HF_HOME"); !home.empty()) return JoinPath(home, "hub");
  std::string cache = variable("XDG_CACHE_HOME");
  if (cache.empty()) cache = JoinPath(variable("HOME"), ".cache");
  return JoinPath(cache, "huggingface/hub");
}

Result<ModelLocation> ResolveModel(const std::string& name, const std::string& hub_cache) {
  Env& env = PosixEnv();
  if (name.empty()) return InvalidArgument("the name of a model is empty");
  if (env.IsDirectory(name)) return LocateInDirectory(name);
  if (env.Exists(name)) {
    if (EndsWith(name, ".gguf")) return ModelLocation{ModelLocation::Kind::kGguf, name};
    return BadInput(fmt::format(
        "{} is a file, but not a .gguf file; for safetensors name the directory that holds "
        "config.json",
        name));
  }
  std::string id = name;
  std::string revision = "main";
  if (const size_t at = name.find('@'); at != std::string::npos) {
    id = name.substr(0, at);
    revision = name.substr(at + 1);
  }
  if (EndsWith(name, ".gguf") || !LooksLikeHubId(id)) {
    return NotFound(fmt::format("there is no file or directory {}", name));
  }
  std::string folder = "models--" + id;
  if (const size_t slash = folder.find('/'); slash != std::string::npos) {
    folder.replace(slash, 1, "--");
  }
  const std::string repo = JoinPath(hub_cache, folder);
  if (!env.IsDirectory(repo)) {
    return NotFound(fmt::format(
        "there is no directory {0}, and the model is not in the local Hugging Face cache either "
        "({1}). Download it first: hf download {0}",
        id, repo));
  }
  EW_ASSIGN(const std::string snapshot, FindSnapshot(repo, revision));
  return LocateInDirectory(snapshot);
}

Result<std::shared_ptr<const ShardedTensors>> ShardedTensors::Open(const std::string& directory,
                                                                   MapMode mode) {
  Env& env = PosixEnv();
  const std::string single = JoinPath(directory, kSingleFile);
  const bool has_index = env.Exists(JoinPath(directory, kIndexFile));
  if (!env.Exists(single)) {
    return has_index ? OpenIndexed(directory, mode) : NoWeights(directory);
  }
  EW_ASSIGN(auto file, SafetensorsFile::Open(single, mode));
  std::shared_ptr<ShardedTensors> tensors(new ShardedTensors);
  for (std::string& name : file->Names()) tensors->file_of_.emplace(std::move(name), 0);
  tensors->files_.push_back(std::move(file));
  if (has_index) {
    tensors->warnings_.push_back(fmt::format("{} holds both {} and {}; the former is used",
                                             directory, kSingleFile, kIndexFile));
  }
  return std::shared_ptr<const ShardedTensors>(std::move(tensors));
}

Result<std::shared_ptr<const ShardedTensors>> ShardedTensors::OpenIndexed(
    const std::string& directory, MapMode mode) {
  const std::string path = JoinPath(directory, kIndexFile);
  EW_ASSIGN(const Json index, ReadJsonFile(path, {.max_bytes = size_t{128} << 20}));
  if (!index.is_object() || !index.contains("weight_map") || !index["weight_map"].is_object()) {
    return BadInput(path + ": there is no \"weight_map\" object");
  }
  std::shared_ptr<ShardedTensors> tensors(new ShardedTensors);
  std::map<std::string, size_t> opened;
  for (const auto& [name, value] : index["weight_map"].items()) {
    if (!value.is_string()) {
      return BadInput(
          fmt::format("{}: the shard of tensor {} is not a string", path, Printable(name)));
    }
    const auto& shard = value.get_ref<const std::string&>();
    if (!IsPlainFileName(shard) || !EndsWith(shard, ".safetensors")) {
      return BadInput(fmt::format(
          "{}: tensor {}: {} is not the plain name of a .safetensors file in this directory", path,
          Printable(name), Printable(shard)));
    }
    auto [it, added] = opened.emplace(shard, tensors->files_.size());
    if (added) {
      EW_ASSIGN(auto file, SafetensorsFile::Open(JoinPath(directory, shard), mode));
      tensors->files_.push_back(std::move(file));
    }
    if (!tensors->files_[it->second]->Has(name)) {
      return BadInput(fmt::format("{}: tensor {} is said to be in {}, which does not have it", path,
                                  Printable(name), shard));
    }
    tensors->file_of_.emplace(name, it->second);
  }
  for (const auto& [shard, i] : opened) {
    size_t extra = 0;
    std::string example;
    for (const SafetensorsEntry& entry : tensors->files_[i]->entries()) {
      const auto mapped = tensors->file_of_.find(entry.name);
      if (mapped != tensors->file_of_.end() && mapped->second == i) continue;
      if (extra++ == 0) example = entry.name;
    }
    if (extra != 0) {
      tensors->warnings_.push_back(fmt::format(
          "{}: {} tensors are ignored because the index does not map them to it, for example {}",
          JoinPath(directory, shard), extra, Printable(example)));
    }
  }
  return std::shared_ptr<const ShardedTensors>(std::move(tensors));
}

std::vector<std::string> ShardedTensors::Names() const {
  std::vector<std::string> names;
  names.reserve(file_of_.size());
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

bool ShardedTensors::Has(std::string_view name) const {
  return file_of_.find(name) != file_of_.end();
}

Result<HostTensor> ShardedTensors::Get(std::string_view name) const {
  const auto it = file_of_.find(name);
  if (it == file_of_.end()) {
    if (files_.size() == 1) return files_[0]->Get(name);  // says which file lacks it
    return NotFound(
        fmt::format("{}: there is no tensor {} in its {} shards",
                    files_.empty() ? std::string("the model") : DirName(files_[0]->path()),
                    Printable(name), files_.size()));
  }
  return files_[it->second]->Get(name);
}

Result<FileRange> ShardedTensors::Locate(std::string_view name) const {
  const auto it = file_of_.find(name);
  if (it == file_of_.end()) return NotFound(fmt::format("there is no tensor {}", name));
  return files_[it->second]->Locate(name);
}

void ShardedTensors::Drop(std::string_view name) const {
  const auto it = file_of_.find(name);
  if (it != file_of_.end()) files_[it->second]->Drop(name);
}

}  // namespace edgewise::formats
