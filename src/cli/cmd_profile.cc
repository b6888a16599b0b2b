// edgewise profile MODEL --calibration TEXT [-o TABLE.json]
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli/calibration_options.h"
#include "cli/commands.h"
#include "cli/model_options.h"
#include "exec/memory.h"

namespace edgewise::cli {
namespace {

class Profile : public Command {
 public:
  std::string name() const override { return "profile"; }
  std::string summary() const override {
    return "How much each layer suffers from quantisation and pruning";
  }

  void Declare(CLI::App& app) override {
    DeclareModel(app, model_);
    DeclareCalibration(app, calibration_);
    app.add_option("-o,--output", output_, "The table, a JSON file; reused when nothing changed")
        ->capture_default_str();
  }

  Status Run(Invocation& inv) override {
    EW_ASSIGN(auto session, OpenSession(inv, model_));
    EW_ASSIGN(const auto windows, ReadCalibration(*session, calibration_));
    EW_ASSIGN(const compress::SensitivityTable table,
              TableFor(inv, *session, calibration_, windows, output_));
    OrderedJson json = TableToJson(table);
    json["peak_rss_bytes"] = ReadProcessMemory().peak_rss_bytes;
    inv.console().SetResult(std::move(json), Text(table));
    return Status::Ok();
  }

 private:
  static std::string Text(const compress::SensitivityTable& table) {
    std::string out = "relative output error (parts per million)\nlayer";
    for (const auto& m : table.layers.front().quantized) {
      out += fmt::format("{:>9}", fmt::format("{} bit", m.option.bits));
    }
    for (const auto& m : table.layers.front().pruned) {
      if (m.option.sparsity >= 0.3)
        out += fmt::format("{:>9}", fmt::format("-{:.0f}%", 100 * m.option.sparsity));
    }
    out += '\n';
    for (size_t l = 0; l < table.layers.size(); ++l) {
      out += fmt::format("{:>5}", l);
      for (const auto& m : table.layers[l].quantized)
        out += fmt::format("{:>9.0f}", 1e6 * m.relative);
      for (const auto& m : table.layers[l].pruned) {
        if (m.option.sparsity >= 0.3) out += fmt::format("{:>9.0f}", 1e6 * m.relative);
      }
      out += '\n';
    }
    return out;
  }

  ModelOptions model_;
  CalibrationOptions calibration_;
  std::string output_ = "sensitivity.json";
};

}  // namespace

std::unique_ptr<Command> MakeProfile() { return std::make_unique<Profile>(); }

}  // namespace edgewise::cli
