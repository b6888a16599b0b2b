// What a run of adaptive layer tuning leaves on disk.
#include <fmt/format.h>

#include <cstdlib>
#include <utility>

#include "formats/peft.h"
#include "formats/safetensors.h"
#include "io/json.h"
#include "model/exit_set.h"
#include "tune/edge_method.h"
#include "tune/optimizer.h"
#include "tune/peft_files.h"

namespace edgewise::tune {

// The adapter's arrays go into a file that PEFT reads when there is one adapter for the whole
// model; everything else into one of ours.
Result<std::vector<ResultFile>> EdgeMethod::Files() {
  std::vector<model::Parameter> lora, rest;
  for (const model::Parameter& p : params_) {
    (cumulative() && !p.name.starts_with("exit.") ? lora : rest).push_back(p);
  }
  std::vector<ResultFile> files;
  if (!lora.empty()) {
    EW_ASSIGN(ResultFile file, TensorFile(kAdapterFile, lora));
    files.push_back(std::move(file));
    files.push_back(AdapterConfigFile(adapter(0), options_.base_name));
  }
  if (!rest.empty()) {
    EW_ASSIGN(ResultFile file, TensorFile(model::kExitTensors, rest));
    files.push_back(std::move(file));
  }
  return files;
}

Status EdgeMethod::Restore(const std::string& directory) {
  std::vector<model::Parameter> lora, rest;
  for (const model::Parameter& p : params_) {
    (cumulative() && !p.name.starts_with("exit.") ? lora : rest).push_back(p);
  }
  for (const auto& [name, params] :
       {std::pair{kAdapterFile, lora}, std::pair{model::kExitTensors, rest}}) {
    if (params.empty()) continue;
    const std::string path = JoinPath(directory, name);
    EW_ASSIGN(auto source, formats::SafetensorsFile::Open(path));
    EW_RETURN_IF_ERROR(LoadParameters(*source, params).WithContext(path));
  }
  return Status::Ok();
}

std::string EdgeMethod::SaveState() const {
  // As text: JSON has neither infinity nor NaN.
  OrderedJson values = OrderedJson::array();
  for (double v : schedule_->SaveState()) values.push_back(fmt::format("{}", v));
  const OrderedJson j = {{"schedule", std::move(values)}, {"reported", reported_}};
  return DumpJson(j);
}

Status EdgeMethod::LoadState(const std::string& state) {
  EW_ASSIGN(const Json json, ParseJson(state));
  try {
    std::vector<double> values;
    for (const Json& v : json.at("schedule")) {
      values.push_back(std::strtod(v.get<std::string>().c_str(), nullptr));
    }
    reported_ = json.value("reported", int64_t{-1});
    return schedule_->RestoreState(values);
  } catch (const nlohmann::json::exception& e) {
    return BadInput(fmt::format("the saved state of the edge method: {}", e.what()));
  }
}

std::string EdgeMethod::OptionsJson() const {
  OrderedJson exits = OrderedJson::array();
  for (const Exit& e : exits_) exits.push_back({{"begin", e.begin}, {"end", e.end}});
  OrderedJson j = {
      {"exits", std::move(exits)},
      {"schedule", std::string(ExitOrderName(options_.order))},
      {"rate_per_window", options_.rate_per_window},
      {"trunk", std::string(TrunkModeName(options_.trunk.mode))},
      {"head", std::string(HeadModeName(options_.head))},
      {"train_norm", options_.train_norm},
      {"head_lora_rank", options_.head_lora_rank},
      {"r", options_.lora.r},
      {"lora_alpha", options_.lora.lora_alpha},
      {"lora_dropout", options_.lora.lora_dropout},
      {"use_rslora", options_.lora.use_rslora},
      {"seed", options_.seed},
      {"cache", trunk_->cache() == nullptr ? std::string("off")
                                           : std::string(HiddenCodecName(options_.trunk.codec))}};
  // What inference needs to read the exits back: model/exit_set.h.
  if (Result<Json> lora = ParseJson(formats::FormatLoraConfig(options_.lora)); lora.ok()) {
    j["lora"] = *lora;
  }
  if (options_.head_lora_alpha > 0) j["head_lora_alpha"] = options_.head_lora_alpha;
  if (options_.backward == kernels::BackwardMode::kInteger) j["backward"] = "integer";
  if (!options_.shares.empty()) j["shares"] = options_.shares;
  if (options_.head_skip_below > 0) j["head_skip_below"] = options_.head_skip_below;
  if (options_.windows_per_step > 1) j["windows_per_step"] = options_.windows_per_step;
  if (options_.activation_bits > 0) j["activation_bits"] = options_.activation_bits;
  if (teacher_.weight > 0) {
    j["teacher"] = {{"name", options_.teacher_name}, {"weight", teacher_.weight}};
  }
  if (options_.whole_head) j["whole_head"] = true;
  if (options_.trunk.exact) j["trunk_forward"] = "exact";
  return DumpJson(j);
}

}  // namespace edgewise::tune
