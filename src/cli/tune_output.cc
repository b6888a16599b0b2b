#include "cli/tune_output.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>

#include "base/units.h"
#include "exec/memory.h"
#include "report/table.h"

namespace edgewise::cli {
namespace {

bool EnvSet(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0';
}

OrderedJson OptionalJson(const std::optional<double>& value) {
  return value ? OrderedJson(*value) : OrderedJson(nullptr);
}

}  // namespace

OrderedJson PlanJson(const TunePlan& plan) {
  OrderedJson json;
  json["predicted_seconds"] = plan.predicted_seconds;
  json["predicted_peak_bytes"] = plan.memory.total();
  json["predicted_step_seconds"] = plan.predicted_step_seconds;
  json["bound"] = plan.bound;
  json["model"] = plan.model;
  json["method"] = plan.method;
  json["base_parameters"] = plan.base_parameters;
  json["trainable_parameters"] = plan.trainable_parameters;
  json["planned_steps"] = plan.steps;
  json["memory"] = {{"weights", plan.memory.weights},         {"trainable", plan.memory.trainable},
                    {"gradients", plan.memory.gradients},     {"optimizer", plan.memory.optimizer},
                    {"activations", plan.memory.activations}, {"scratch", plan.memory.scratch},
                    {"runtime", plan.memory.runtime}};
  if (plan.memory_limit > 0) json["memory_limit_bytes"] = plan.memory_limit;
  json["recompute"] = plan.recompute != plan::Recompute::kNone;
  json["recomputed"] = plan::RecomputeName(plan.recompute);
  json["mlp_tokens"] = plan.mlp_tokens;
  json["split_tokens"] = plan.split_tokens;
  if (plan.windows > 0) {
    json["windows"] = plan.windows;
    json["window_layers"] = plan.window_layers;
  }
  json["group"] = plan.group;
  json["offloaded"] = plan.offloaded;
  if (plan.offloaded) json["weight_budget_bytes"] = plan.weight_budget;
  json["spilled_layers"] = plan.spilled_layers;
  if (plan.spilled_layers > 0) {
    json["layers_in_memory"] = plan.layers_in_memory;
    json["predicted_step_written_bytes"] = std::llround(plan.written_bytes);
    json["predicted_written_bytes"] =
        std::llround(plan.written_bytes * static_cast<double>(plan.steps));
  }
  return json;
}

std::string PlanText(const TunePlan& plan, const std::string& data_report) {
  std::string text = fmt::format(
      "{}, {}: {} of {} parameters are trained\n{}{} steps, {} micro-batches an epoch of up to {} "
      "tokens\n",
      plan.model, plan.method, FormatCount(static_cast<double>(plan.trainable_parameters)),
      FormatCount(static_cast<double>(plan.base_parameters)), data_report, plan.steps,
      plan.batches_per_epoch, plan.batch_tokens);
  std::string predicted =
      fmt::format("predicted: {}, {} a step; {}",
                  plan.predicted_seconds > 0 ? FormatSeconds(plan.predicted_seconds) : "no time",
                  FormatSeconds(plan.predicted_step_seconds), plan.memory.ToString());
  if (plan.memory_limit > 0) {
    predicted += fmt::format(" (limit {})", FormatBytes(plan.memory_limit));
  }
  text = report::WrapLines(text + predicted, 2);
  if (plan.windows_chosen) {
    text += fmt::format(
        "\nlayers are tuned in {} windows of up to {}, each below an exit of its own, since fewer "
        "windows do not fit: exits that vote in place of one adapter (--exits 1: one window, or no "
        "run)",
        plan.windows, plan.window_layers);
  }
  if (plan.split_tokens > 0) {
    text += fmt::format(
        "\nmicro-batches are cut between documents into ones of up to {} tokens: sums in another "
        "order (--split never: none, or no run)",
        plan.split_tokens);
  }
  if (plan.spilled_layers > 0) {
    const auto bytes = [](double b) { return FormatBytes(std::llround(b)); };
    text += fmt::format(
        "\nactivations of {} layers pass through the disk: {} written a step, {} in the run "
        "(--spill never: none, or no run)",
        plan.spilled_layers, bytes(plan.written_bytes),
        bytes(plan.written_bytes * static_cast<double>(plan.steps)));
  }
  if (plan.recompute != plan::Recompute::kNone) {
    text += fmt::format(
        "\nactivations {}are computed again in the backward pass, {} tokens at a "
        "time through an MLP",
        plan.recompute == plan::Recompute::kMlp ? "of the MLPs " : "",
        std::min(plan.mlp_tokens, plan.batch_tokens));
  }
  if (plan.offloaded) {
    text += fmt::format("\nweights are read from disk as they are needed, {} of them in memory",
                        FormatBytes(plan.weight_budget));
    if (plan.group > 1) {
      text += fmt::format("; {} micro-batches pass through a layer together", plan.group);
    }
  }
  return text;
}

std::string SampleText(const data::PreviewSample& sample) {
  std::string text = fmt::format("-- {} ({}), {} tokens; learned: «...»\n", sample.where,
                                 data::FormatName(sample.format), sample.tokens.size());
  bool learned = false;
  for (const data::PreviewToken& token : sample.tokens) {
    if (token.learned != learned) text += token.learned ? "«" : "»";
    learned = token.learned;
    text += token.piece;
  }
  return text + (learned ? "»\n" : "\n");
}

OrderedJson SampleJson(const data::PreviewSample& sample) {
  OrderedJson json;
  json["where"] = sample.where;
  json["format"] = data::FormatName(sample.format);
  json["rendered"] = sample.rendered;
  for (const data::PreviewToken& token : sample.tokens) {
    json["ids"].push_back(token.id);
    json["pieces"].push_back(token.piece);
    json["mask"].push_back(token.learned ? 1 : 0);
  }
  return json;
}

OrderedJson ResultJson(const TunePlan& plan, const tune::TrainResult& result,
                       const std::string& run_dir) {
  const tune::RunState& s = result.state;
  OrderedJson json = PlanJson(plan);
  json["seconds"] = result.seconds_here;
  json["steps"] = s.step;
  json["tokens"] = s.tokens;
  json["tokens_per_second"] = result.tokens_per_s;
  json["step_seconds"] = result.step_seconds;
  json["peak_rss_bytes"] = ReadProcessMemory().peak_rss_bytes;
  json["train_loss"] = s.loss_tokens > 0
                           ? OrderedJson(s.loss_sum / static_cast<double>(s.loss_tokens))
                           : OrderedJson(nullptr);
  json["valid_loss"] = OptionalJson(s.valid_loss);
  // Full-depth tuning has one exit, the model's own, and nothing to vote on.
  json["exits"] = OrderedJson::array();
  json["vote"] = nullptr;
  json["last_loss"] = s.last_loss;
  json["start_valid_loss"] = OptionalJson(s.start_valid_loss);
  json["best_valid_loss"] = OptionalJson(s.best_loss);
  json["best_step"] = s.best_step;
  json["supervised_tokens"] = s.supervised_tokens;
  json["skipped_steps"] = s.skipped_total;
  json["resumed_from"] = result.resumed_from;
  json["exported"] = result.exported;
  json["exported_step"] = result.exported_step;
  json["run"] = run_dir;
  return json;
}

std::string ResultText(const OrderedJson& result) {
  report::Table table({});
  const auto add = [&](const char* key, const std::string& value) { table.AddRow({key, value}); };
  const auto number = [&](const char* key, const char* format) {
    const auto it = result.find(key);
    return it == result.end() || !it->is_number()
               ? std::string("-")
               : fmt::format(fmt::runtime(format), it->get<double>());
  };
  add("run", result.value("run", ""));
  add("steps", number("steps", "{:.0f}"));
  add("tokens", number("tokens", "{:.0f}"));
  add("train loss", number("train_loss", "{:.4f}"));
  add("valid loss",
      number("start_valid_loss", "{:.4f}") + " -> " + number("best_valid_loss", "{:.4f}"));
  add("speed", number("tokens_per_second", "{:.0f} tok/s"));
  add("time", FormatSeconds(result.value("seconds", 0.0)) + " (predicted " +
                  FormatSeconds(result.value("predicted_seconds", 0.0)) + ")");
  add("a step", FormatSeconds(result.value("step_seconds", 0.0)) + " (predicted " +
                    FormatSeconds(result.value("predicted_step_seconds", 0.0)) + ")");
  add("peak memory", FormatBytes(result.value("peak_rss_bytes", int64_t{0})) + " (predicted " +
                         FormatBytes(result.value("predicted_peak_bytes", int64_t{0})) + ")");
  return table.Render();
}

report::ProgressOptions ProgressFor(const Console& console, bool no_progress,
                                    int64_t memory_limit) {
  report::ProgressEnvironment env;
  env.is_terminal = isatty(STDERR_FILENO) == 1;
  env.ci = EnvSet("CI");
  env.no_color = EnvSet("NO_COLOR");
  const char* term = std::getenv("TERM");
  env.dumb = term == nullptr || std::string_view(term) == "dumb";
  env.quiet = console.quiet();
  env.no_progress = no_progress;
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) env.columns = size.ws_col;
  report::ProgressOptions options = report::ChooseProgress(env);
  options.memory_limit_bytes = memory_limit;
  return options;
}

}  // namespace edgewise::cli
