#include "io/env_mem.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/rng.h"

namespace edgewise {
namespace {

std::vector<std::string> Split(const std::string& path) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin < path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    std::string part = path.substr(begin, end - begin);
    if (!part.empty() && part != ".") parts.push_back(std::move(part));
    begin = end + 1;
  }
  return parts;
}

Status NoSuchFile(const std::string& path) {
  return NotFound(fmt::format("there is no file or directory {}", path));
}

}  // namespace

struct MemEnv::Node {
  bool is_directory = false;
  std::string data, durable_data;
  std::map<std::string, NodePtr> entries, durable_entries;

  // Returns to what survives a power cut; `rng` null: only what is durable.
  void Crash(Rng* rng) {
    if (!is_directory) {
      if (rng != nullptr && data != durable_data && rng->NextBelow(3) != 0) {
        durable_data = data.substr(0, rng->NextBelow(data.size() + 1));
      }
      data = durable_data;
      return;
    }
    if (rng != nullptr && rng->NextBelow(2) != 0) durable_entries = entries;
    entries = durable_entries;
    for (const auto& [name, node] : entries) node->Crash(rng);
  }
};

class MemEnv::File : public WritableFile {
 public:
  File(MemEnv& env, NodePtr node, std::string path)
      : env_(env), node_(std::move(node)), path_(std::move(path)) {}

  Status Append(std::span<const std::byte> bytes) override {
    const std::lock_guard lock(env_.mutex_);
    const int64_t room = std::max<int64_t>(0, env_.capacity_ - Bytes(*env_.root_));
    const size_t fits = std::min(bytes.size(), static_cast<size_t>(room));
    node_->data.append(reinterpret_cast<const char*>(bytes.data()), fits);
    if (fits == bytes.size()) return Status::Ok();
    return IoError(fmt::format("cannot write {}: No space left on device", path_));
  }
  Status Sync() override {
    const std::lock_guard lock(env_.mutex_);
    node_->durable_data = node_->data;
    return Status::Ok();
  }
  Status Close() override { return Status::Ok(); }

 private:
  MemEnv& env_;
  NodePtr node_;
  std::string path_;
};

MemEnv::MemEnv() : root_(std::make_shared<Node>()), capacity_(std::numeric_limits<int64_t>::max()) {
  root_->is_directory = true;
}
MemEnv::~MemEnv() = default;

void MemEnv::Crash(CrashMode mode, uint64_t seed) {
  const std::lock_guard lock(mutex_);
  Rng rng(seed, RngStream::kTest);
  root_->Crash(mode == CrashMode::kArbitrary ? &rng : nullptr);
}

void MemEnv::SetCapacity(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  capacity_ = bytes;
}

int64_t MemEnv::UsedBytes() const {
  const std::lock_guard lock(mutex_);
  return Bytes(*root_);
}

int64_t MemEnv::Bytes(const Node& node) {
  auto total = static_cast<int64_t>(node.data.size());
  for (const auto& [name, child] : node.entries) total += Bytes(*child);
  return total;
}

MemEnv::NodePtr MemEnv::Find(const std::string& path) const {
  NodePtr node = root_;
  for (const std::string& part : Split(path)) {
    const auto it = node->entries.find(part);
    if (it == node->entries.end()) return nullptr;
    node = it->second;
  }
  return node;
}

Result<MemEnv::NodePtr> MemEnv::Parent(const std::string& path, std::string& name) const {
  std::vector<std::string> parts = Split(path);
  if (parts.empty()) return InvalidArgument(fmt::format("{} has no parent directory", path));
  name = parts.back();
  parts.pop_back();
  NodePtr node = root_;
  for (const std::string& part : parts) {
    const auto it = node->entries.find(part);
    if (it == node->entries.end() || !it->second->is_directory) return NoSuchFile(path);
    node = it->second;
  }
  return node;
}

Result<std::unique_ptr<WritableFile>> MemEnv::Open(const std::string& path, bool truncate) {
  const std::lock_guard lock(mutex_);
  std::string name;
  EW_ASSIGN(const NodePtr parent, Parent(path, name));
  NodePtr& node = parent->entries[name];
  if (node == nullptr) node = std::make_shared<Node>();
  if (node->is_directory) return IoError(fmt::format("cannot create {}: Is a directory", path));
  if (truncate) node->data.clear();
  return std::unique_ptr<WritableFile>(new File(*this, node, path));
}

Result<std::unique_ptr<WritableFile>> MemEnv::NewWritableFile(const std::string& path) {
  return Open(path, true);
}

Result<std::unique_ptr<WritableFile>> MemEnv::NewAppendableFile(const std::string& path) {
  return Open(path, false);
}

Result<std::string> MemEnv::ReadFile(const std::string& path, int64_t max_bytes) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = Find(path);
  if (node == nullptr) return NoSuchFile(path);
  if (node->is_directory) return BadInput(path + " is a directory, not a file");
  if (static_cast<int64_t>(node->data.size()) > max_bytes) {
    return BadInput(fmt::format("{} is larger than the {} bytes accepted", path, max_bytes));
  }
  return node->data;
}

Status MemEnv::Rename(const std::string& from, const std::string& to) {
  const std::lock_guard lock(mutex_);
  std::string old_name, new_name;
  EW_ASSIGN(const NodePtr old_parent, Parent(from, old_name));
  EW_ASSIGN(const NodePtr new_parent, Parent(to, new_name));
  const auto it = old_parent->entries.find(old_name);
  if (it == old_parent->entries.end()) return NoSuchFile(from);
  const NodePtr node = it->second;
  const auto target = new_parent->entries.find(new_name);
  if (target != new_parent->entries.end() && target->second != node) {
    const Node& there = *target->second;
    if (there.is_directory != node->is_directory ||
        (there.is_directory && !there.entries.empty())) {
      return IoError(fmt::format("cannot rename {} to {}: it exists", from, to));
    }
  }
  old_parent->entries.erase(it);
  new_parent->entries[new_name] = node;
  return Status::Ok();
}

Status MemEnv::SyncDir(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = Find(path);
  if (node == nullptr || !node->is_directory) return NoSuchFile(path);
  node->durable_entries = node->entries;
  return Status::Ok();
}

Status MemEnv::CreateDirs(const std::string& path) {
  const std::lock_guard lock(mutex_);
  NodePtr node = root_;
  for (const std::string& part : Split(path)) {
    NodePtr& child = node->entries[part];
    if (child == nullptr) {
      child = std::make_shared<Node>();
      child->is_directory = true;
    }
    if (!child->is_directory) {
      return IoError(fmt::format("cannot create directory {}: {} is a file", path, part));
    }
    node = child;
  }
  return Status::Ok();
}

Status MemEnv::RemoveAll(const std::string& path) {
  const std::lock_guard lock(mutex_);
  std::string name;
  const Result<NodePtr> parent = Parent(path, name);
  if (parent.ok()) (*parent)->entries.erase(name);
  return Status::Ok();
}

Status MemEnv::Truncate(const std::string& path, int64_t size) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = Find(path);
  if (node == nullptr || node->is_directory) return NoSuchFile(path);
  if (size < 0) return InvalidArgument(fmt::format("cannot truncate {} to {} bytes", path, size));
  node->data.resize(static_cast<size_t>(size), '\0');
  return Status::Ok();
}

Result<std::vector<std::string>> MemEnv::ListDir(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = Find(path);
  if (node == nullptr || !node->is_directory) return NoSuchFile(path);
  std::vector<std::string> names;
  for (const auto& [name, child] : node->entries) names.push_back(name);
  return names;
}

Result<int64_t> MemEnv::FileSize(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = Find(path);
  if (node == nullptr) return NoSuchFile(path);
  return static_cast<int64_t>(node->data.size());
}

bool MemEnv::Exists(const std::string& path) {
  const std::lock_guard lock(mutex_);
  return Find(path) != nullptr;
}

bool MemEnv::IsDirectory(const std::string& path) {
  const std::lock_guard lock(mutex_);
  const NodePtr node = Find(path);
  return node != nullptr && node->is_directory;
}

Result<int64_t> MemEnv::FreeBytes(const std::string& path) {
  const std::lock_guard lock(mutex_);
  if (Find(path) == nullptr) return NoSuchFile(path);
  return std::max<int64_t>(0, capacity_ - Bytes(*root_));
}

}  // namespace edgewise
