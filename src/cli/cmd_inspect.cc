// edgewise inspect MODEL|RUN
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/units.h"
#include "cli/commands.h"
#include "cli/inspect_packed.h"
#include "formats/gguf.h"
#include "formats/hf_dir.h"
#include "formats/peft.h"
#include "formats/safetensors.h"
#include "io/env.h"
#include "io/json.h"
#include "model/config.h"
#include "model/packed_base.h"
#include "report/table.h"

namespace edgewise::cli {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return fmt::format("{}", fmt::join(shape, " x "));
}

struct TensorRow {
  std::string name, type;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
};

OrderedJson ConfigJson(const model::ModelConfig& c) {
  OrderedJson json;
  json["architecture"] = c.architecture;
  json["layers"] = c.num_layers();
  json["hidden"] = c.hidden;
  json["ffn"] = c.ffn;
  json["heads"] = c.heads;
  json["kv_heads"] = c.kv_heads;
  json["head_dim"] = c.head_dim;
  json["vocabulary"] = c.vocab;
  json["context"] = c.max_positions;
  json["rope_theta"] = c.ropes.empty() ? 0.0 : c.ropes[0].theta;
  json["tied_head"] = c.tied;
  json["parameters"] = c.parameter_count();
  return json;
}

std::string ScalarText(const formats::GgufValue& value) {
  if (value.type == formats::GgufValueType::kArray) {
    return fmt::format("[{} x {}]", value.count, formats::GgufValueTypeName(value.element_type));
  }
  return std::visit(
      [](const auto& v) -> std::string {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, std::monostate>) {
          return "";
        } else {
          return fmt::format("{}", v);
        }
      },
      value.scalar);
}

class Inspect : public Command {
 public:
  std::string name() const override { return "inspect"; }
  std::string summary() const override { return "Show what a model, adapter or run holds"; }

  void Declare(CLI::App& app) override {
    app.add_option("model", model_, "Model, GGUF file, hub id, PEFT adapter or run directory");
    app.add_flag("--tensors", tensors_, "List every tensor");
    app.add_flag("--metadata", metadata_, "List all GGUF metadata");
  }

  Status Run(Invocation& inv) override {
    if (model_.empty()) return InvalidArgument("no MODEL is named");
    Env& env = PosixEnv();
    OrderedJson json;
    std::string text;
    // A packed base's edgewise.json holds its policy and errors: shown with its layers.
    const bool packed = env.Exists(JoinPath(model_, model::kPackedFile));
    if (!packed && env.Exists(JoinPath(model_, "edgewise.json"))) {
      EW_ASSIGN(const Json run, ReadJsonFile(JoinPath(model_, "edgewise.json")));
      json["run"] = run;
      text += "run\n" + DumpJson(run, 2) + "\n";
    }
    if (env.Exists(JoinPath(model_, "adapter_config.json"))) {
      EW_RETURN_IF_ERROR(InspectAdapter(json, text));
    } else {
      EW_ASSIGN(const formats::ModelLocation location, formats::ResolveModel(model_));
      if (location.kind == formats::ModelLocation::Kind::kGguf) {
        EW_RETURN_IF_ERROR(InspectGguf(location.path, json, text));
      } else {
        EW_RETURN_IF_ERROR(InspectDirectory(location.path, json, text));
      }
    }
    inv.console().SetResult(std::move(json), std::move(text));
    return Status::Ok();
  }

 private:
  void AddConfig(const model::ModelConfig& config, OrderedJson& json, std::string& text) const {
    json["config"] = ConfigJson(config);
    report::Table table({});
    for (const auto& [key, value] : json["config"].items()) {
      table.AddRow({key, value.is_string() ? value.get<std::string>() : DumpJson(value)});
    }
    text += table.Render() + "\n";
  }

  void AddTensors(const std::vector<TensorRow>& rows, OrderedJson& json, std::string& text) const {
    std::map<std::string, std::pair<int64_t, int64_t>> by_type;
    int64_t total = 0;
    for (const TensorRow& row : rows) {
      ++by_type[row.type].first;
      by_type[row.type].second += row.bytes;
      total += row.bytes;
    }
    json["tensor_count"] = rows.size();
    json["bytes"] = total;
    report::Table summary({"type", "tensors", "size"});
    for (const auto& [type, sum] : by_type) {
      json["types"][type] = {{"tensors", sum.first}, {"bytes", sum.second}};
      summary.AddRow({type, std::to_string(sum.first), FormatBytes(sum.second)});
    }
    summary.AddRow({"all", std::to_string(rows.size()), FormatBytes(total)});
    text += summary.Render();
    if (!tensors_) return;
    report::Table table({"tensor", "type", "shape", "bytes"});
    json["tensors"] = OrderedJson::array();
    for (const TensorRow& row : rows) {
      json["tensors"].push_back(
          {{"name", row.name}, {"type", row.type}, {"shape", row.shape}, {"bytes", row.bytes}});
      table.AddRow({row.name, row.type, ShapeText(row.shape), std::to_string(row.bytes)});
    }
    text += "\n" + table.Render(1 << 20);
  }

  Status InspectDirectory(const std::string& path, OrderedJson& json, std::string& text) const {
    json["kind"] = "model";
    json["path"] = path;
    const std::string config_path = JoinPath(path, "config.json");
    EW_ASSIGN(const Json config_json, ReadJsonFile(config_path));
    EW_ASSIGN(const model::ModelConfig config,
              model::ConfigFromHf(config_json).WithContext(config_path));
    AddConfig(config, json, text);
    const std::string packed = JoinPath(path, model::kPackedFile);
    if (PosixEnv().Exists(packed)) {
      EW_RETURN_IF_ERROR(InspectPackedBase(path, config, tensors_, json, text));
      EW_ASSIGN(const auto file, formats::SafetensorsFile::Open(packed));
      json["files"] = 1;
      return AddSource(*file, json, text);
    }
    EW_ASSIGN(const auto source, formats::ShardedTensors::Open(path));
    json["files"] = source->files().size();
    return AddSource(*source, json, text);
  }

  Status AddSource(const formats::TensorSource& source, OrderedJson& json,
                   std::string& text) const {
    std::vector<TensorRow> rows;
    for (const std::string& name : source.Names()) {
      EW_ASSIGN(const HostTensor tensor, source.Get(name));
      rows.push_back({name, std::string(DTypeName(tensor.view.dtype)), tensor.view.shape,
                      tensor.view.bytes()});
    }
    AddTensors(rows, json, text);
    return Status::Ok();
  }

  Status InspectGguf(const std::string& path, OrderedJson& json, std::string& text) const {
    json["kind"] = "gguf";
    json["path"] = path;
    EW_ASSIGN(const auto file, formats::GgufFile::Open(path));
    Result<model::ModelConfig> config = model::ConfigFromGguf(*file);
    if (config.ok()) {
      AddConfig(*config, json, text);
    } else {
      // Still worth showing: an adapter, or an architecture that cannot be run.
      json["config_error"] = config.status().message();
      text += "not a model that can be run: " + config.status().message() + "\n\n";
    }
    if (metadata_) {
      report::Table table({"key", "value"});
      for (const auto& [key, value] : file->header().metadata) {
        std::string shown = ScalarText(value);
        json["metadata"][key] = shown;
        if (shown.size() > 48) shown = shown.substr(0, 46) + "..";
        table.AddRow({key, DumpJson(Json(shown))});
      }
      text += table.Render(1 << 20) + "\n";
    }
    std::vector<TensorRow> rows;
    for (const formats::GgufTensor& tensor : file->tensors()) {
      rows.push_back({tensor.name, std::string(formats::InfoOf(tensor.type).name), tensor.shape,
                      static_cast<int64_t>(tensor.bytes)});
    }
    AddTensors(rows, json, text);
    return Status::Ok();
  }

  Status InspectAdapter(OrderedJson& json, std::string& text) const {
    json["kind"] = "adapter";
    json["path"] = model_;
    EW_ASSIGN(const formats::PeftAdapter adapter, formats::ReadPeftAdapter(model_));
    OrderedJson config;
    config["base"] = adapter.config.base_model_name_or_path;
    config["rank"] = adapter.config.r;
    config["alpha"] = adapter.config.lora_alpha;
    config["rslora"] = adapter.config.use_rslora;
    config["modules"] = adapter.pairs.size();
    int64_t parameters = 0;
    std::vector<TensorRow> rows;
    for (const auto& [name, pair] : adapter.pairs) {
      for (const HostTensor* tensor : {&pair.a, &pair.b}) {
        parameters += tensor->view.elements();
        rows.push_back({name + (tensor == &pair.a ? ".lora_A" : ".lora_B"),
                        std::string(DTypeName(tensor->view.dtype)), tensor->view.shape,
                        tensor->view.bytes()});
      }
    }
    config["parameters"] = parameters;
    json["config"] = config;
    report::Table table({});
    for (const auto& [key, value] : config.items()) {
      table.AddRow({key, value.is_string() ? value.get<std::string>() : DumpJson(value)});
    }
    text += table.Render() + "\n";
    AddTensors(rows, json, text);
    return Status::Ok();
  }

  std::string model_;
  bool tensors_ = false, metadata_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeInspect() { return std::make_unique<Inspect>(); }

}  // namespace edgewise::cli
