#include "tune/peft_files.h"

#include <set>
#include <utility>

#include "formats/peft.h"
#include "formats/safetensors_writer.h"
#include "tune/optimizer.h"

namespace edgewise::tune {

ResultFile TextFile(std::string name, std::string text) {
  ResultFile file;
  file.name = std::move(name);
  file.bytes = static_cast<int64_t>(text.size());
  file.write = [text = std::move(text)](WritableFile& out) {
    return out.Append(std::as_bytes(std::span(text.data(), text.size())));
  };
  return file;
}

Result<ResultFile> TensorFile(std::string name, std::span<const model::Parameter> params) {
  auto writer = std::make_shared<formats::SafetensorsWriter>();
  EW_RETURN_IF_ERROR(SaveParameters(params, *writer));
  ResultFile file;
  file.name = std::move(name);
  file.bytes = writer->FileBytes();
  file.write = [writer](WritableFile& out) { return writer->WriteTo(out); };
  return file;
}

void ListTargets(const model::LoraAdapter& adapter, formats::LoraConfig* config) {
  if (config->targets != formats::LoraConfig::Targets::kAllLinear) return;
  std::set<std::string> names;
  for (int64_t layer = 0; layer < adapter.num_layers(); ++layer) {
    for (model::LinearKind kind : model::kAllLinears) {
      if (adapter.slot(layer, kind) != nullptr) names.insert(std::string(LinearName(kind)));
    }
  }
  config->targets = formats::LoraConfig::Targets::kList;
  config->target_modules.assign(names.begin(), names.end());
}

ResultFile AdapterConfigFile(const model::LoraAdapter& adapter, const std::string& base_name) {
  formats::LoraConfig config = adapter.lora_config();
  ListTargets(adapter, &config);
  config.base_model_name_or_path = base_name;
  return TextFile(kAdapterConfig, formats::FormatLoraConfig(config));
}

}  // namespace edgewise::tune
