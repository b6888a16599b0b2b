// edgewise tune MODEL --data D -o RUN
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>

#include "base/units.h"
#include "cli/commands.h"
#include "cli/report_samples.h"
#include "cli/run_file.h"
#include "cli/tune_data.h"
#include "cli/tune_fit.h"
#include "cli/tune_options.h"
#include "cli/tune_output.h"
#include "cli/tune_vote.h"
#include "exec/cpu.h"
#include "exec/memory.h"
#include "formats/hf_dir.h"
#include "infer/load_tokenizer.h"
#include "io/env.h"
#include "model/weight_stream.h"
#include "tune/fingerprint.h"

namespace edgewise::cli {
namespace {

constexpr int kPreviewSamples = 3;
// Until it is known how much room there is for the weights.
constexpr int64_t kEverything = int64_t{1} << 60;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void AddStreamStats(const model::WeightStream& stream, OrderedJson* json) {
  const model::StreamStats s = stream.stats();
  (*json)["weights_read_bytes"] = s.bytes;
  (*json)["weights_read_seconds"] = s.read_seconds;
  (*json)["weights_wait_seconds"] = s.wait_seconds;
}

void AddSpillStats(const model::ActivationSpill& spill, OrderedJson* json) {
  const model::SpillStats s = spill.stats();
  (*json)["activations_written_bytes"] = s.bytes_written;
  (*json)["activations_read_bytes"] = s.bytes_read;
  (*json)["activations_wait_seconds"] = s.wait_seconds;
}

class Tune : public Command {
 public:
  std::string name() const override { return "tune"; }
  std::string summary() const override { return "Adapt a model to data"; }
  void Declare(CLI::App& app) override { DeclareTune(app, flags_); }

  Status Run(Invocation& inv) override {
    const Status status = Train(inv);
    // What training held is given back before the report's models are opened.
    if (status.ok() && !flags_.dry_run) WriteReport(inv);
    return status;
  }

 private:
  Status Train(Invocation& inv) {
    EW_RETURN_IF_ERROR(CheckFlags());
    if (flags_.out.empty()) flags_.out = DefaultRunDirectory(flags_.model);
    if (const std::string note = ChooseMethod(flags_); !note.empty()) {
      inv.console().Log("note: " + note);
    }
    EW_RETURN_IF_ERROR(ApplyPaperMode(flags_));
    EW_ASSIGN(tune::ModelMethodOptions method_options, MethodOptions(flags_));
    EW_ASSIGN(tune::TrainOptions train_options, TrainerOptions(flags_));
    model::LoadOptions load;
    Result<model::StorageDType> storage = model::ParseStorageDType(flags_.dtype);
    if (!storage.ok()) return InvalidArgument("--dtype: " + storage.status().message());
    load.storage = *storage;
    load.keep_quant = flags_.keep_quant;

    Console& console = inv.console();
    EW_ASSIGN(ExecContext * exec, inv.Exec());
    EW_ASSIGN(const formats::ModelLocation location, formats::ResolveModel(flags_.model));
    const bool directory = location.kind == formats::ModelLocation::Kind::kHfDirectory;
    if (method_options.kind == tune::MethodKind::kFull && !directory) {
      return Unsupported(flags_.model +
                         ": full fine-tuning needs a Hugging Face directory as base");
    }
    if (directory) method_options.base_directory = location.path;

    EW_ASSIGN(const text::Tokenizer tokenizer, infer::LoadTokenizer(location));
    EW_ASSIGN(load.tuning, inv.Tuning());
    EW_ASSIGN(const int64_t asked, AskedMemory());
    // Full fine-tuning and GGUF files need the weights in memory.
    if (asked > 0 && directory && method_options.kind != tune::MethodKind::kFull) {
      load.stream.budget_bytes = kEverything;
      load.stream.direct_io = flags_.weights_io == "direct";
    }
    // The description alone says how long rows may be; weights are mapped or streamed, not read.
    EW_ASSIGN(auto model, model::Model::Load(location.path, load));
    for (const std::string& note : model->notes()) console.Log("note: " + note);
    EW_ASSIGN(auto pipeline, DataPipeline::Create(location, tokenizer, flags_.data_flags,
                                                  model->config().max_positions));
    if (!pipeline->warning().empty()) console.Log("note: " + pipeline->warning());
    EW_ASSIGN(TuneData data, LoadTuneData(flags_, *pipeline));
    method_options.base_dtype = model->weights().embedding.dtype;

    TunePlan plan;
    TuneFit fit(*exec, *model, flags_, data, &plan);
    EW_ASSIGN(const int64_t recorded, tune::RecordedSplit(PosixEnv(), train_options));
    EW_ASSIGN(const int64_t windows, tune::RecordedWindows(PosixEnv(), train_options));
    if (windows > 0 && !flags_.given("--exits")) flags_.edge.exits = windows;
    EW_RETURN_IF_ERROR(fit.Begin(method_options, asked, recorded));
    // Before anything is written, the states below the windows included: another process may be
    // tuning there, or an earlier run may lie there.
    std::unique_ptr<tune::RunLock> lock;
    if (!flags_.dry_run) {
      EW_RETURN_IF_ERROR(tune::CheckRunDirectory(PosixEnv(), train_options));
      EW_ASSIGN(lock, tune::RunLock::Acquire(PosixEnv(), flags_.out));
    }
    std::unique_ptr<tune::Method> method;
    if (flags_.method == "edge") {
      EW_ASSIGN(auto edge, FitEdge(inv, *exec, *model, location.path, data, plan, &fit));
      EW_RETURN_IF_ERROR(fit.Calibrate(*edge, edge.get()));
      method = std::move(edge);
    } else {
      EW_RETURN_IF_ERROR(fit.Predict(nullptr));
      method_options.recompute = plan.recompute;
      method_options.mlp_rows = plan.mlp_tokens;
      method_options.group = plan.group;
      method_options.layers_in_memory = plan.layers_in_memory;
      method_options.spill = fit.spill();
      EW_ASSIGN(method, tune::ModelMethod::Create(*exec, *model, method_options, fit.max_tokens()));
      EW_RETURN_IF_ERROR(fit.Calibrate(*method, nullptr));
    }
    train_options.split_tokens = plan.split_tokens;
    if (flags_.dry_run) {
      EW_ASSIGN(const std::vector<data::PreviewSample> samples,
                data::PreviewDataset(data.train_path, pipeline->masker(),
                                     pipeline->OptionsFor("train"), kPreviewSamples));
      return DryRun(console, plan, data, samples);
    }
    console.Log(PlanText(plan, data.report));
    // What planning read is not the run's.
    if (model->stream() != nullptr) model->stream()->ResetStats();
    if (fit.spill() != nullptr) fit.spill()->ResetStats();

    tune::TrainInputs inputs;
    inputs.train = data.train.get();
    inputs.valid = data.valid.get();
    inputs.base_path = flags_.model;
    inputs.lock = lock.get();
    EW_ASSIGN(inputs.base_fingerprint, tune::FingerprintModel(location.path));
    inputs.version = EDGEWISE_VERSION;
    inputs.extra_json = DumpJson(OrderedJson{{"plan", PlanJson(plan)},
                                             {"prediction",
                                              {{"peak_bytes", plan.memory.total()},
                                               {"step_seconds", plan.predicted_step_seconds},
                                               {"seconds", plan.predicted_seconds}}},
                                             {"machine",
                                              {{"cpu", GetCpuInfo().name},
                                               {"isa", IsaName(exec->isa())},
                                               {"threads", exec->threads()}}}});

    report::Progress progress(ProgressFor(console, flags_.no_progress, plan.memory_limit),
                              [](std::string_view text) { WriteStderr(text); });
    tune::TrainHooks hooks;
    hooks.on_event = [&](const report::Event& event) { progress.On(event); };
    hooks.stop = &inv.stop();
    auto trainer =
        std::make_unique<tune::Trainer>(*exec, PosixEnv(), *method, train_options, inputs, hooks);
    const Status status = trainer->Run();
    const tune::TrainResult result = trainer->result();
    const int64_t cache_bytes = CacheBytes(*method);
    // Room for the exits as they were written.
    trainer.reset();
    method.reset();
    progress.Finish();
    // After a wrong use nothing has happened that could be reported.
    if (status.ok() || result.state.step > 0) {
      OrderedJson json = ResultJson(plan, result, flags_.out);
      if (model->stream() != nullptr) AddStreamStats(*model->stream(), &json);
      if (fit.spill() != nullptr) AddSpillStats(*fit.spill(), &json);
      if (status.ok()) {
        json["memory_trace"] =
            MemoryTrace(plan.memory, cache_bytes, json["peak_rss_bytes"].get<int64_t>());
        OrderedJson kept = {{"memory", json["memory_trace"]}};
        if (fit.spill() != nullptr && result.steps_here > 0) {
          kept["activations_written_step_bytes"] =
              fit.spill()->stats().bytes_written / result.steps_here;
        }
        EW_RETURN_IF_ERROR(AddToRunFile(flags_.out, kept));
      }
      // The directory may hold the exits of an earlier run.
      if (status.ok() && flags_.method == "edge") {
        EW_ASSIGN(TunedVote vote,
                  FitRunVote(inv, *model, flags_.out, data, fit.max_tokens(), plan.split_tokens));
        json["exits"] = std::move(vote.exits);
        json["vote"] = std::move(vote.vote);
        json["peak_rss_bytes"] = ReadProcessMemory().peak_rss_bytes;
      }
      const std::string text = ResultText(json);
      console.SetResult(std::move(json), text);
    }
    return status;
  }

  // The page is a convenience: the run is done, and failing to draw it only leaves a note.
  void WriteReport(Invocation& inv) const {
    SampleRequest request;
    request.model = flags_.model;
    request.run = flags_.out;
    request.data_flags = flags_.data_flags;
    request.count = flags_.report_samples;
    const bool directory = PosixEnv().IsDirectory(flags_.data);
    request.data = flags_.valid_data.empty() ? flags_.data : flags_.valid_data;
    request.trained = flags_.valid_data.empty() && !directory;
    // Answering opens the model as a whole, which a limit may forbid.
    if (!flags_.memory.empty()) request.count = 0;
    const Result<std::string> path = WriteRunReport(inv, request);
    inv.console().Log(path.ok() ? "report: " + *path
                                : "note: no report: " + path.status().message());
  }

  Status CheckFlags() const {
    if (flags_.model.empty()) return InvalidArgument("no MODEL is named");
    if (flags_.data.empty()) return InvalidArgument("no data is named (--data)");
    return ParseSplit(flags_.split).status();
  }

  // --memory in bytes; 0: not given.
  Result<int64_t> AskedMemory() const {
    if (flags_.memory.empty()) return int64_t{0};
    Result<int64_t> limit = ParseBytes(flags_.memory);
    if (!limit.ok()) return InvalidArgument("--memory: " + limit.status().message());
    return limit;
  }

  // Adaptive layer tuning, planned, with as many windows as fit where their number is open.
  Result<std::unique_ptr<tune::EdgeMethod>> FitEdge(Invocation& inv, ExecContext& ctx,
                                                    const model::Model& model,
                                                    const std::string& model_path,
                                                    const TuneData& data, const TunePlan& plan,
                                                    TuneFit* fit) {
    for (;;) {
      bool cached = false;
      const auto make = [&] {
        return MakeEdge(inv, ctx, model, model_path, data, plan, *fit, &cached);
      };
      EW_ASSIGN(auto method, make());
      const int64_t teacher = teacher_ != nullptr ? teacher_->weight_bytes() : 0;
      Status status = fit->AddWindows(method.get(), cached, teacher);
      if (status.ok()) {
        status = fit->Predict(method.get());
        // What planning itself takes is no window's.
        if (status.ok()) return method;
        if (ReadProcessMemory().peak_rss_bytes > plan.memory_limit) return status;
      }
      const int64_t tried = flags_.edge.exits;
      if (fit->MayShrinkWindows() && tried > 1) {
        // From one window all others can be told.
        method.reset();
        flags_.edge.exits = 1;
        EW_ASSIGN(method, make());
      }
      EW_ASSIGN(flags_.edge.exits, fit->SmallerWindows(method.get(), tried, std::move(status)));
    }
  }

  Result<std::unique_ptr<tune::EdgeMethod>> MakeEdge(Invocation& inv, ExecContext& ctx,
                                                     const model::Model& model,
                                                     const std::string& model_path,
                                                     const TuneData& data, const TunePlan& plan,
                                                     const TuneFit& fit, bool* cached) const {
    EW_ASSIGN(tune::EdgeOptions options, EdgeMethodOptions(flags_, model.config().num_layers()));
    options.total_steps = plan.steps;
    options.trunk.undecided = fit.MayCut() || fit.MayShrinkWindows();
    EW_RETURN_IF_ERROR(OpenTeacher(&options));
    // A run that sees no document twice has nothing to gain from a cache.
    const bool once =
        plan.steps * flags_.grad_accum <= plan.batches_per_epoch && options.exits.exits == 1;
    *cached = !options.trunk.cache_path.empty() && !once;
    if (flags_.dry_run || once) options.trunk.cache_path.clear();
    // The states below a window depend on the base and on how the windows below were tuned.
    EW_ASSIGN(const std::string base, tune::FingerprintModel(model_path));
    const std::string made_by = options.trunk.mode == tune::TrunkMode::kFrozen
                                    ? base
                                    : fmt::format("{} {} {} {}", base, data.train->fingerprint(),
                                                  plan.steps, TuneOptionsText(flags_));
    // "xxh3:" and 32 hexadecimal digits.
    options.trunk.base_hash =
        std::strtoull(tune::FingerprintText(made_by).substr(5, 16).c_str(), nullptr, 16);
    std::vector<std::vector<int32_t>> documents;
    for (const tune::DatasetSource* source : {data.train.get(), data.valid.get()}) {
      if (source == nullptr) continue;
      for (const data::Example& e : source->dataset().examples()) documents.push_back(e.ids);
    }
    if (!options.trunk.cache_path.empty()) {
      // A new run tunes the windows below anew, perhaps with other options. A frozen trunk stays.
      const bool cumulative = options.trunk.mode == tune::TrunkMode::kCumulative;
      if (flags_.resume.empty() && cumulative)
        EW_RETURN_IF_ERROR(PosixEnv().RemoveAll(options.trunk.cache_path));
    }
    if (options.order == tune::ExitOrder::kAdaptive && data.valid != nullptr) {
      for (int64_t i = 0; i < std::min<int64_t>(data.valid->batches_per_epoch(), 16); ++i) {
        EW_ASSIGN(options.held_out.emplace_back(), data.valid->Get(0, i));
      }
    }
    Console& console = inv.console();
    double last = Now();
    return tune::EdgeMethod::Create(
        ctx, model, std::move(options), std::move(documents), data.max_tokens, &inv.stop(),
        [&console, last](const tune::TrunkProgress& p) mutable {
          if (Now() - last < 2 && p.documents_done < p.documents) return;
          last = Now();
          console.Log(fmt::format("states below window {}: {} of {} tokens", p.exit + 1,
                                  p.tokens_done, p.tokens));
        });
  }

  // --distill: the model to learn from.
  Status OpenTeacher(tune::EdgeOptions* options) const {
    if (flags_.edge.distill.empty()) return Status::Ok();
    EW_ASSIGN(const formats::ModelLocation location, formats::ResolveModel(flags_.edge.distill));
    if (teacher_ == nullptr) {
      EW_ASSIGN(teacher_, model::Model::Load(location.path));
    }
    EW_ASSIGN(options->teacher_name, tune::FingerprintModel(location.path));
    options->teacher = teacher_.get();
    options->teacher_weight = flags_.edge.distill_weight;
    return Status::Ok();
  }

  static int64_t CacheBytes(const tune::Method& method) {
    const auto* edge = dynamic_cast<const tune::EdgeMethod*>(&method);
    return edge != nullptr && edge->trunk().cache() != nullptr
               ? edge->trunk().cache()->memory_bytes()
               : 0;
  }

  static Status DryRun(Console& console, const TunePlan& plan, const TuneData& data,
                       const std::vector<data::PreviewSample>& samples) {
    OrderedJson json = PlanJson(plan);
    if (plan.predicted_seconds == 0) json["predicted_seconds"] = nullptr;
    json["data"] = data.report;
    json["samples"] = OrderedJson::array();
    std::string text = PlanText(plan, data.report) + "\n";
    for (const data::PreviewSample& sample : samples) {
      json["samples"].push_back(SampleJson(sample));
      text += "\n" + SampleText(sample);
    }
    console.SetResult(std::move(json), std::move(text));
    return Status::Ok();
  }

  TuneFlags flags_;
  mutable std::unique_ptr<model::Model> teacher_;
};

}  // namespace

std::unique_ptr<Command> MakeTune() { return std::make_unique<Tune>(); }

}  // namespace edgewise::cli
