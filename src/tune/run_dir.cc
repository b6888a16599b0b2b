#include "tune/run_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/units.h"
#include "io/atomic_file.h"
#include "io/json.h"

namespace edgewise::tune {
namespace {

constexpr int kRunSchema = 1;
constexpr const char* kLockName = ".lock";

bool EndsWith(const std::string& text, std::string_view end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

OrderedJson Optional(const std::optional<double>& v) {
  return v ? OrderedJson(*v) : OrderedJson(nullptr);
}

// Keeps a text on one line of Markdown or YAML, without ending a quoted string.
std::string OneLine(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == '"' || c == '\\' || c == '`') c = ' ';
  }
  return text;
}

}  // namespace

Result<std::unique_ptr<RunLock>> RunLock::Acquire(Env& env, const std::string& run_dir) {
  EW_RETURN_IF_ERROR(env.CreateDirs(run_dir));
  const std::string path = JoinPath(run_dir, kLockName);
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return IoError(fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    ::close(fd);
    if (error == EWOULDBLOCK) {
      return InvalidArgument(fmt::format(
          "another process is tuning in {}: wait for it, stop it, or choose another directory",
          run_dir));
    }
    // Some network file systems have no locks; a run there is the user's to guard.
    if (error != ENOLCK && error != EOPNOTSUPP) {
      return IoError(fmt::format("cannot lock {}: {}", path, std::strerror(error)));
    }
    return std::unique_ptr<RunLock>(new RunLock(-1));
  }
  return std::unique_ptr<RunLock>(new RunLock(fd));
}

RunLock::~RunLock() {
  if (fd_ >= 0) ::close(fd_);
}

Status WriteRunFile(Env& env, const std::string& run_dir, const RunDescription& d) {
  EW_ASSIGN(Json options, ParseJson(d.identity.options_json));
  const RunState& s = d.state;
  OrderedJson j;
  j["schema"] = kRunSchema;
  j["what"] = d.method == "full" ? "model" : "adapter";
  j["status"] = d.status;
  j["version"] = d.version;
  j["base"] = {{"path", d.base_path}, {"fingerprint", d.identity.model}};
  j["method"] = d.method;
  j["options"] = options;
  j["seed"] = d.seed;
  j["data"] = {{"train", d.identity.data}, {"valid", d.identity.valid_data}};
  j["steps"] = s.step;
  j["total_steps"] = d.total_steps;
  j["tokens"] = s.tokens;
  j["supervised_tokens"] = s.supervised_tokens;
  j["skipped_steps"] = s.skipped_total;
  j["train_loss"] = s.loss_tokens > 0 ? OrderedJson(s.loss_sum / static_cast<double>(s.loss_tokens))
                                      : OrderedJson(nullptr);
  j["start_valid_loss"] = Optional(s.start_valid_loss);
  j["valid_loss"] = Optional(s.valid_loss);
  j["best_valid_loss"] = Optional(s.best_loss);
  j["best_step"] = s.best_step;
  j["seconds"] = s.seconds;
  j["peak_rss_bytes"] = s.peak_rss_bytes;
  if (d.step_seconds > 0) {
    j["measured"] = {
        {"peak_bytes", s.peak_rss_bytes}, {"step_seconds", d.step_seconds}, {"seconds", s.seconds}};
  }
  j["exported"] = d.exported;
  j["exported_step"] = d.exported_step;
  if (!d.extra_json.empty()) {
    Result<Json> extra = ParseJson(d.extra_json);
    if (!extra.ok() || !extra->is_object()) return Internal("extra_json is not a JSON object");
    for (const auto& [key, value] : extra->items()) {
      if (!j.contains(key)) j[key] = value;
    }
  }
  return WriteFileAtomic(env, JoinPath(run_dir, kRunFile), DumpJson(j, 2) + "\n");
}

Status WriteModelCard(Env& env, const std::string& run_dir, const RunDescription& d) {
  const RunState& s = d.state;
  const bool full = d.method == "full";
  const std::string base = OneLine(d.base_path);
  EW_ASSIGN(Json options, ParseJson(d.identity.options_json));
  std::string t = "---\n";
  t += fmt::format("base_model: \"{}\"\n", base);
  t += fmt::format("library_name: {}\n", full ? "transformers" : "peft");
  t += "pipeline_tag: text-generation\ntags:\n";
  if (!full) t += fmt::format("- base_model:adapter:{}\n- lora\n", base);
  t += "- edgewise\n---\n\n";
  t += fmt::format("# {} of {}\n\n", full ? "Fine-tuned copy" : "LoRA adapter",
                   OneLine(BaseName(d.base_path)));
  t += fmt::format("Made with edgewise {}, method `{}`, on the device.\n\n", d.version, d.method);
  t += "| | |\n|---|---|\n";
  t += fmt::format("| base | `{}` |\n| base fingerprint | `{}` |\n", base, d.identity.model);
  t += fmt::format("| training data fingerprint | `{}` |\n", d.identity.data);
  t += fmt::format("| steps | {} of {} (these files: step {}, {}) |\n", s.step, d.total_steps,
                   d.exported_step, d.exported);
  t += fmt::format("| tokens | {} ({} supervised) |\n", s.tokens, s.supervised_tokens);
  if (s.start_valid_loss) {
    t += fmt::format("| validation loss before | {:.4f} |\n", *s.start_valid_loss);
  }
  if (s.valid_loss) {
    t += fmt::format("| validation loss after | {:.4f} (best {:.4f}) |\n", *s.valid_loss,
                     s.best_loss.value_or(*s.valid_loss));
  }
  t += fmt::format("| time | {} |\n| peak memory | {} |\n", FormatSeconds(s.seconds),
                   FormatBytes(s.peak_rss_bytes));
  t += "\n## Options\n\n```json\n" + DumpJson(options, 2) + "\n```\n";
  if (d.method == "edge") {
    t += "\n## Use\n\n`edgewise chat DIRECTORY` reads this directory; `edgewise export DIRECTORY "
         "--to "
         "peft` or `--to hf` writes an exit for other programs.\n";
  } else if (!full) {
    t += "\n## Use\n\n```python\nfrom peft import PeftModel\n"
         "from transformers import AutoModelForCausalLM\n"
         "model = PeftModel.from_pretrained(\n";
    t += fmt::format("    AutoModelForCausalLM.from_pretrained(\"{}\"), \"this directory\")\n```\n",
                     base);
  }
  return WriteFileAtomic(env, JoinPath(run_dir, "README.md"), t);
}

Status WriteResultFiles(Env& env, const std::string& run_dir,
                        const std::vector<ResultFile>& files) {
  std::vector<const ResultFile*> order;
  for (const ResultFile& file : files) order.push_back(&file);
  std::stable_partition(order.begin(), order.end(),
                        [](const ResultFile* f) { return !EndsWith(f->name, ".json"); });
  for (const ResultFile* f : order) {
    EW_ASSIGN(auto out, AtomicFile::Create(env, JoinPath(run_dir, f->name)));
    EW_RETURN_IF_ERROR(f->write(out->file()));
    EW_RETURN_IF_ERROR(out->Commit());
  }
  return Status::Ok();
}

}  // namespace edgewise::tune
