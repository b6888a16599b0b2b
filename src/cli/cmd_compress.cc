// edgewise compress MODEL --calibration TEXT --bits 4 --sparsity 0.5 --policy budget -o OUT
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cmath>
#include <string_view>

#include "base/units.h"
#include "cli/calibration_options.h"
#include "cli/commands.h"
#include "cli/counter_line.h"
#include "cli/model_options.h"
#include "compress/compress_linear.h"
#include "compress/compressor.h"
#include "compress/derive.h"
#include "compress/latency.h"
#include "compress/memory_need.h"
#include "exec/memory.h"
#include "schedule/measure.h"
#include "tune/fingerprint.h"

namespace edgewise::cli {
namespace {

constexpr std::string_view kPolicySuffix = ".json";

class Compress : public Command {
 public:
  std::string name() const override { return "compress"; }
  std::string summary() const override {
    return "Prune and quantise a model into a packed base, layer by layer";
  }

  void Declare(CLI::App& app) override {
    DeclareModel(app, model_);
    DeclareCalibration(app, calibration_);
    app.add_option("-o,--output", output_,
                   "Directory of the compressed base (--policy-only: the policy, a .json file)");
    app.add_option("--bits", request_.bits, "Width (budget: of the uniform policy to stay within)")
        ->check(CLI::IsMember({2, 3, 4, 5, 6, 8}))
        ->capture_default_str();
    app.add_option("--sparsity", request_.sparsity, "Share of weights pruned")
        ->check(CLI::Range(0.0, 0.95))
        ->capture_default_str();
    app.add_option("--average-bits", average_bits_,
                   "budget: packed bits a weight of the linears, scales and masks included")
        ->check(CLI::Range(1.0, 16.5));
    app.add_option("--policy", policy_,
                   "budget, paper, paper-literal, uniform, random, or a policy file")
        ->capture_default_str();
    AddSize(app, "--size", size_, "budget: packed size of all linears, for example 40MiB");
    app.add_option("--latency", latency_ms_,
                   "budget: predicted milliseconds of all linears for one token (decode)")
        ->check(CLI::PositiveNumber);
    app.add_option("--device", device_, "--latency: a device file instead of this machine's");
    app.add_option("--embedding-bits", request_.embedding_bits, "Embedding: 4, 8 or 16")
        ->check(CLI::IsMember({4, 8, 16}))
        ->capture_default_str();
    app.add_option("--head-bits", request_.head_bits, "Untied head: 4, 8 or 16")
        ->check(CLI::IsMember({4, 8, 16}))
        ->capture_default_str();
    app.add_option("--table", table_, "Sensitivity table, made when absent (default: beside -o)");
    app.add_flag("--policy-only", policy_only_,
                 "Stop at the policy: print it, or write it where -o names a file");
  }

  Status Run(Invocation& inv) override {
    EW_RETURN_IF_ERROR(CheckOutput());
    EW_ASSIGN(auto session, OpenSession(inv, model_));
    EW_ASSIGN(const auto windows, ReadCalibration(*session, calibration_));
    EW_ASSIGN(compress::CompressOptions options, Options(inv, *session, windows));
    if (policy_only_) {
      const std::string text = DumpJson(PolicyToJson(options.policy), 1) + "\n";
      if (!output_.empty()) {
        EW_RETURN_IF_ERROR(WriteFileAtomic(PosixEnv(), output_, text));
      }
      inv.console().SetResult(PolicyToJson(options.policy),
                              output_.empty() ? text : output_ + "\n");
      return Status::Ok();
    }
    EW_ASSIGN(ExecContext * exec, inv.Exec());
    const compress::MemoryNeed need = compress::CompressNeed(
        *exec, session->model(), windows, options, ReadProcessMemory().rss_bytes);
    EW_ASSIGN(options.memory_bytes, StateMemory(calibration_, need));
    const auto start = std::chrono::steady_clock::now();
    Result<compress::CompressReport> report = [&] {
      CounterLine line(inv.console(), "layer");
      return compress::CompressModel(
          *exec, session->model(), windows, options, output_, &inv.stop(),
          [&](const compress::CompressProgress& p) { line.Update(p.layer, p.layers); });
    }();
    if (!report.ok()) return report.status();
    for (const std::string& warning : report->warnings) inv.console().Warn(warning);
    OrderedJson json = ReportToJson(*report);
    json["policy"] = options.policy.name;
    json["seconds"] =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    json["predicted_peak_bytes"] = need.smallest() + std::min(need.states, options.memory_bytes);
    json["peak_rss_bytes"] = ReadProcessMemory().peak_rss_bytes;
    json["resumed_layers"] = report->resumed_layers;
    json["output"] = output_;
    inv.console().SetResult(std::move(json), Text(*report));
    return Status::Ok();
  }

 private:
  Status CheckOutput() const {
    if (!policy_only_) {
      return output_.empty() ? InvalidArgument("-o: no directory for the compressed base is named")
                             : Status::Ok();
    }
    // Any other name is that of a base, and --policy takes no other file.
    return output_.empty() || output_.ends_with(kPolicySuffix)
               ? Status::Ok()
               : InvalidArgument(
                     "--policy-only writes no base: -o has to name a .json file for the "
                     "policy (without -o it is printed)");
  }

  // Beside the output; "": nowhere.
  std::string DefaultTable() const {
    std::string_view stem = output_;
    if (policy_only_ && !stem.empty()) stem.remove_suffix(kPolicySuffix.size());
    return stem.empty() ? "" : std::string(stem) + "-sensitivity.json";
  }

  Result<compress::CompressOptions> Options(Invocation& inv, const infer::Session& session,
                                            const std::vector<TokenBatch>& windows) {
    EW_ASSIGN(compress::CompressOptions o, MethodOf(calibration_));
    const std::string& path = session.location().path;
    if (PosixEnv().IsDirectory(path)) o.source_dir = path;
    EW_ASSIGN(o.source_hash, tune::FingerprintModel(path));
    const model::ModelConfig& config = session.model().config();
    if (policy_.ends_with(kPolicySuffix)) {
      EW_ASSIGN(const Json json, ReadJsonFile(policy_));
      EW_ASSIGN(o.policy, compress::PolicyFromJson(json, config).WithContext(policy_));
      return o;
    }
    EW_ASSIGN(request_.kind, compress::ParsePolicyKind(policy_));
    request_.group = calibration_.group;
    request_.pattern = calibration_.pattern;
    request_.seed = calibration_.seed;
    if (!size_.empty()) {
      EW_ASSIGN(request_.budget, ParseBytes(size_));
    }
    // A budget in bytes leaves the choice open; one that stands for a dense policy stays dense.
    request_.allow_sparsity =
        request_.sparsity > 0 || !size_.empty() || average_bits_ > 0 || latency_ms_ > 0;
    if (!size_.empty() + (average_bits_ > 0) + (latency_ms_ > 0) > 1) {
      return InvalidArgument("give one of --size, --average-bits and --latency");
    }
    if (average_bits_ > 0) {
      double weights = 0;
      for (model::LinearKind kind : model::kAllLinears) {
        const model::LinearShape shape = model::ShapeOf(config, kind);
        weights += static_cast<double>(shape.in) * static_cast<double>(shape.out);
      }
      request_.budget = static_cast<int64_t>(average_bits_ / 8 * weights *
                                             static_cast<double>(config.num_layers()));
    }
    compress::SensitivityTable table;
    table.layers.resize(config.layers.size());
    if (request_.kind != compress::PolicyKind::kUniform) {
      const std::string kept = table_.empty() ? DefaultTable() : table_;
      EW_ASSIGN(table, TableFor(inv, session, calibration_, windows, kept,
                                request_.kind == compress::PolicyKind::kBudget));
      if (kept.empty()) {
        inv.console().Log("the sensitivity table is not kept (--table FILE keeps it)");
      }
    }
    EW_ASSIGN(compress::DerivedPolicy derived, Derive(inv, table, config));
    if (request_.kind == compress::PolicyKind::kBudget) {
      const auto amount = [&](int64_t cost) {
        return latency_ms_ > 0 ? fmt::format("{:.3f} ms", 1e-6 * static_cast<double>(cost))
                               : FormatBytes(cost);
      };
      inv.console().Log(fmt::format(
          "policy: {} of {} used, predicted loss +{:.4f} ({})", amount(derived.cost),
          amount(derived.budget), derived.predicted_loss,
          derived.exact ? "optimal" : fmt::format("at best +{:.4f}", derived.lower_bound)));
    }
    o.policy = std::move(derived.policy);
    return o;
  }

  Result<compress::DerivedPolicy> Derive(Invocation& inv, const compress::SensitivityTable& table,
                                         const model::ModelConfig& config) {
    if (latency_ms_ <= 0) {
      const compress::CostFn bytes = [this](int64_t rows, int64_t cols,
                                            const compress::Option& option) {
        return compress::PackedBytes(rows, cols, option, request_.group, request_.pattern);
      };
      return DerivePolicy(table, config, request_, bytes);
    }
    if (request_.kind != compress::PolicyKind::kBudget) {
      return InvalidArgument("--latency is a limit of --policy budget");
    }
    plan::Device device;
    if (device_.empty()) {
      EW_ASSIGN(device, MeasuredDevice(inv));
    } else {
      EW_ASSIGN(device, schedule::LoadDevice(device_));
    }
    request_.budget = std::llround(1e6 * latency_ms_);
    Result<compress::DerivedPolicy> derived = DerivePolicy(
        table, config, request_, compress::DecodeLatency(device, request_.group, request_.pattern));
    return derived.ok()
               ? std::move(derived)
               : derived.status().WithContext("--latency: no policy is as fast (nanoseconds)");
  }

  static std::string Text(const compress::CompressReport& r) {
    std::string out = "layer   bits  sparsity      bytes     worst error\n";
    for (size_t l = 0; l < r.layers.size(); ++l) {
      double bits = 0, sparsity = 0, error = 0;
      int64_t bytes = 0;
      for (const compress::LinearReport& x : r.layers[l]) {
        bits += x.option.bits / static_cast<double>(model::kLinearKinds);
        sparsity += x.option.sparsity / model::kLinearKinds;
        bytes += x.bytes;
        error = std::max(error, x.error);
      }
      out += fmt::format("{:>5}  {:>5.2f}  {:>7.0f}%  {:>9}  {:>12.5f}\n", l, bits, 100 * sparsity,
                         FormatBytes(bytes), error);
    }
    out += fmt::format("linears {} ({:.2f} bits a weight), embedding and head {}, file {}\n",
                       FormatBytes(r.linear_bytes),
                       8.0 * static_cast<double>(r.linear_bytes) /
                           static_cast<double>(std::max<int64_t>(1, r.linear_weights)),
                       FormatBytes(r.embedding_bytes), FormatBytes(r.file_bytes));
    return out;
  }

  ModelOptions model_;
  CalibrationOptions calibration_;
  compress::PolicyRequest request_;
  std::string output_, policy_ = "budget", size_, table_, device_;
  double average_bits_ = 0, latency_ms_ = 0;
  bool policy_only_ = false;
};

}  // namespace

std::unique_ptr<Command> MakeCompress() { return std::make_unique<Compress>(); }

}  // namespace edgewise::cli
