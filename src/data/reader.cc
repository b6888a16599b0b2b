#include "data/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "data/tasks.h"
#include "io/env.h"
#include "io/mapped_file.h"
#include "text/chat_template.h"
#include "text/jinja/template.h"

namespace edgewise::data {

namespace {

using text::jinja::Value;

constexpr size_t kMaxMessages = 8;  // of bad rows that are kept
constexpr int kMaxJsonDepth = 64;

bool IsBlank(std::string_view line) {
  return std::all_of(line.begin(), line.end(),
                     [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; });
}

std::string_view Extension(std::string_view path) {
  const size_t dot = path.rfind('.');
  const size_t slash = path.rfind('/');
  if (dot == std::string_view::npos || (slash != std::string_view::npos && dot < slash)) return "";
  return path.substr(dot);
}

class Reader {
 public:
  Reader(const std::string& path, const ReadOptions& options,
         const std::function<Status(Sample)>& take)
      : path_(path), options_(options), take_(take) {}

  Status ReadLines(std::string_view text) {
    int64_t line_number = 0;
    while (!text.empty() && !Full()) {
      const size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      ++line_number;
      if (IsBlank(line)) {
        ++report_.blank;
        continue;
      }
      const std::string where = fmt::format("{}:{}", path_, line_number);
      if (static_cast<int64_t>(line.size()) > options_.max_row_bytes) {
        EW_RETURN_IF_ERROR(Bad(where, BadInput(fmt::format("a line of {} bytes, allowed are {}",
                                                           line.size(), options_.max_row_bytes))));
        continue;
      }
      EW_RETURN_IF_ERROR(Take(where, ParseSample(line, options_.columns)));
    }
    return Status::Ok();
  }

  Status ReadArray(const Value& array) {
    for (size_t i = 0; i < array.items().size() && !Full(); ++i) {
      EW_RETURN_IF_ERROR(Take(fmt::format("{}: row {}", path_, i + 1),
                              ParseSample(array.items()[i], options_.columns)));
    }
    return Status::Ok();
  }

  // {"train": [[text, label], ...], "val": ...}
  Status ReadPairs(const Value& splits, const std::string& split) {
    const Value* list = nullptr;
    std::vector<std::string_view> names = {split};
    if (split == "valid") names = {"valid", "val", "validation", "dev"};
    for (const std::string_view name : names) {
      if (list == nullptr) list = splits.dict().Find(name);
    }
    const auto is_pair = [](const Value& v) {
      return v.is_sequence() && v.items().size() == 2 && v.items()[0].is_string() &&
             v.items()[1].is_string();
    };
    if (list == nullptr || !list->is_sequence()) {
      return BadInput(
          fmt::format("{}: an object without a list '{}'; a .json file must hold an "
                      "array of rows, or splits with pairs of text and label",
                      path_, split));
    }
    for (size_t i = 0; i < list->items().size() && !Full(); ++i) {
      const Value& pair = list->items()[i];
      const std::string where = fmt::format("{}: {} {}", path_, split, i + 1);
      if (!is_pair(pair)) {
        EW_RETURN_IF_ERROR(Bad(where, BadInput("not a pair of text and label")));
        continue;
      }
      const Value row = Value::MakeDict(
          {{Value::String("prompt"), pair.items()[0]},
           {Value::String("completion"), Value::String(LabelText(pair.items()[1].str()))}});
      EW_RETURN_IF_ERROR(Take(where, ParseSample(row)));
    }
    return Status::Ok();
  }

  Status ReadPlain(std::string_view text) {
    const std::string& separator = options_.document_separator;
    int64_t line = 1;
    while (!text.empty() && !Full()) {
      const size_t end =
          separator.empty() ? text.size() : std::min(text.find(separator), text.size());
      std::string_view document = text.substr(0, end);
      text.remove_prefix(std::min(end + separator.size(), text.size()));
      const int64_t first_line = line;
      line += std::count(document.begin(), document.end(), '\n');
      if (end != document.size() || !text.empty() || first_line > 1) {
        // Between separators the line ends around a document are layout, not text.
        while (document.starts_with('\n') || document.starts_with("\r\n")) {
          document.remove_prefix(document.starts_with('\n') ? 1 : 2);
        }
        while (document.ends_with('\n') || document.ends_with('\r')) document.remove_suffix(1);
      }
      if (IsBlank(document)) {
        ++report_.blank;
        continue;
      }
      Sample sample;
      sample.format = Format::kText;
      sample.text = std::string(document);
      EW_RETURN_IF_ERROR(Take(fmt::format("{}:{}", path_, first_line), std::move(sample)));
    }
    return Status::Ok();
  }

  Result<ReadReport> Finish() {
    if (report_.rows > 0) return std::move(report_);
    std::string why = fmt::format("{}: no usable row", path_);
    if (report_.bad > 0) {
      why += fmt::format(" ({} bad, the first: {})", report_.bad, report_.first_bad[0]);
    }
    return BadInput(why +
                    "; a row of a .jsonl file looks like {\"prompt\": \"..\", "
                    "\"completion\": \"..\"}; docs/data.md has the other forms");
  }

 private:
  bool Full() const { return options_.max_rows >= 0 && report_.rows >= options_.max_rows; }

  Status Bad(const std::string& where, const Status& status) {
    const Status named = status.WithContext(where);
    // Only bad input is a property of the row; running out of memory or a bug is not.
    if (status.code() != StatusCode::kBadInput) return named;
    if (options_.bad_rows == BadRows::kError) {
      return BadInput(named.message() + " (--skip-bad-rows leaves bad rows out)");
    }
    ++report_.bad;
    if (report_.first_bad.size() < kMaxMessages) report_.first_bad.push_back(named.message());
    return Status::Ok();
  }

  Status Take(const std::string& where, Result<Sample> sample) {
    if (!sample.ok()) return Bad(where, sample.status());
    sample->where = where;
    if (const Status taken = take_(std::move(sample).value()); !taken.ok()) {
      return Bad(where, taken);
    }
    ++report_.rows;
    return Status::Ok();
  }

  const std::string& path_;
  const ReadOptions& options_;
  const std::function<Status(Sample)>& take_;
  ReadReport report_;
};

}  // namespace

Result<DataFiles> FindDataFiles(const std::string& path) {
  Env& env = PosixEnv();
  DataFiles files;
  if (!env.Exists(path)) {
    return NotFound(fmt::format("{}: no such data file or directory", path));
  }
  if (!env.IsDirectory(path)) {
    files.train = path;
    return files;
  }
  const auto find = [&](std::initializer_list<const char*> names) {
    for (const char* name : names) {
      for (const char* extension : {".jsonl", ".json", ".txt"}) {
        const std::string file = JoinPath(path, std::string(name).append(extension));
        if (env.Exists(file)) return file;
      }
    }
    return std::string();
  };
  files.train = find({"train"});
  files.valid = find({"valid", "validation", "val", "dev"});
  files.test = find({"test"});
  if (files.train.empty() && files.valid.empty() && files.test.empty()) {
    return NotFound(fmt::format(
        "{}: the directory has no train, valid or test file (.jsonl, .json or .txt)", path));
  }
  return files;
}

Result<ReadReport> ReadSamples(const std::string& path, const ReadOptions& options,
                               const std::function<Status(Sample)>& take,
                               const std::string& split) {
  const std::string_view extension = Extension(path);
  if (extension == ".parquet" || extension == ".arrow" || extension == ".csv" ||
      extension == ".tsv") {
    return Unsupported(
        fmt::format("{}: {} files are not read; convert it to JSON lines, for example with Python: "
                    "datasets.load_dataset(...).to_json(\"train.jsonl\")",
                    path, extension));
  }
  if (extension == ".zip" || extension == ".gz" || extension == ".zst") {
    return Unsupported(fmt::format("{}: unpack it first", path));
  }
  EW_ASSIGN(const auto file, MappedFile::Open(path));
  std::string_view text(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  Reader reader(path, options, take);
  if (extension == ".txt" || extension == ".md") {
    EW_RETURN_IF_ERROR(reader.ReadPlain(text));
    return reader.Finish();
  }
  const size_t first = text.find_first_not_of(" \t\r\n");
  const bool array = first != std::string_view::npos && text[first] == '[';
  if (extension == ".json" && first != std::string_view::npos) {
    Result<Value> whole = text::jinja::ParseJsonValue(text, kMaxJsonDepth);
    if (whole.ok() && whole->is_sequence()) {
      EW_RETURN_IF_ERROR(reader.ReadArray(*whole));
      return reader.Finish();
    }
    if (whole.ok() && whole->is_dict() &&
        (whole->dict().Find("train") != nullptr || whole->dict().Find("test") != nullptr)) {
      EW_RETURN_IF_ERROR(reader.ReadPairs(*whole, split));
      return reader.Finish();
    }
    if (array) return whole.status().WithContext(path);
  }
  EW_RETURN_IF_ERROR(reader.ReadLines(text));
  return reader.Finish();
}

}  // namespace edgewise::data
