#include "tune/edge_method.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/rng.h"
#include "kernels/weight_rows.h"
#include "model/flops.h"
#include "model/held_weights.h"
#include "tune/cut_batch.h"
#include "tune/memory_estimate.h"
#include "tune/optimizer.h"
#include "tune/peft_files.h"

namespace edgewise::tune {
namespace {

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Result<HeadMode> ParseHeadMode(std::string_view name) {
  for (HeadMode mode : {HeadMode::kShared, HeadMode::kCopy}) {
    if (HeadModeName(mode) == name) return mode;
  }
  return InvalidArgument(fmt::format("'{}' is not an exit head; known: shared, copy", name));
}

std::string_view HeadModeName(HeadMode mode) {
  return mode == HeadMode::kShared ? "shared" : "copy";
}

EdgeMethod::EdgeMethod(ExecContext& ctx, const model::Model& model, EdgeOptions options,
                       int64_t max_tokens)
    : model_(model), options_(std::move(options)), pass_(ctx, model, max_tokens) {
  SetGroup(1);
}

void EdgeMethod::SetGroup(int64_t group) {
  group_ = TakesGroups() ? std::max<int64_t>(group, 1) : 1;
  pass_.Release();
  if (teacher_pass_ != nullptr) teacher_pass_->Release();
  start_ = FloatBuffer();
  start_ = FloatBuffer(group_ * pass_.max_tokens() * model_.config().hidden);
}

Status EdgeMethod::SetMaxTokens(int64_t max_tokens, int64_t split_tokens) {
  if (max_tokens == pass_.max_tokens() && split_tokens == split_tokens_) return Status::Ok();
  EW_RETURN_IF_ERROR(trunk_->SetMaxTokens(max_tokens, split_tokens));
  pass_.SetMaxTokens(max_tokens);
  SetTeacherTokens(max_tokens);
  split_tokens_ = split_tokens;
  SetGroup(group_);
  held_out_.clear();
  for (const TokenBatch& batch : options_.held_out) {
    for (TokenBatch& part : CutBatch(batch, split_tokens)) held_out_.push_back(std::move(part));
  }
  return Status::Ok();
}

Result<std::unique_ptr<EdgeMethod>> EdgeMethod::Create(ExecContext& ctx, const model::Model& model,
                                                       EdgeOptions options,
                                                       std::vector<std::vector<int32_t>> documents,
                                                       int64_t max_tokens,
                                                       const std::atomic<bool>* stop,
                                                       TrunkProgressFn progress) {
  if (max_tokens < 1) return InvalidArgument("a batch holds at least one token");
  if (options.head_lora_rank < 0 || options.head_lora_rank > model.config().hidden) {
    return InvalidArgument(fmt::format("a LoRA of rank {} on a head of hidden size {}",
                                       options.head_lora_rank, model.config().hidden));
  }
  if (options.trunk.mode == TrunkMode::kCumulative && options.order != ExitOrder::kSequential) {
    return InvalidArgument(
        "with a cumulative trunk the exits are tuned from the bottom up: use the sequential "
        "schedule, or a frozen trunk");
  }
  if (options.rate_per_window && options.order != ExitOrder::kSequential) {
    return InvalidArgument("a learning rate per window needs the sequential schedule");
  }
  if (options.windows_per_step < 1 ||
      (options.windows_per_step > 1 && options.trunk.mode == TrunkMode::kCumulative)) {
    return InvalidArgument(
        "with a cumulative trunk a step tunes one window: those below have to be settled");
  }
  options.trunk.activation_bits = options.activation_bits;
  std::unique_ptr<EdgeMethod> m(new EdgeMethod(ctx, model, std::move(options), max_tokens));
  EW_RETURN_IF_ERROR(m->MakeTeacher(ctx, max_tokens));
  m->stop_ = stop;
  m->progress_ = std::move(progress);
  EW_ASSIGN(m->exits_, LayOutExits(model.config().num_layers(), m->options_.exits));
  if (m->options_.windows_per_step > static_cast<int64_t>(m->exits_.size())) {
    return InvalidArgument(fmt::format("{} windows a step, there are {}",
                                       m->options_.windows_per_step, m->exits_.size()));
  }
  if (!m->options_.shares.empty() && m->options_.shares.size() != m->exits_.size()) {
    return InvalidArgument(fmt::format("{} shares of the steps for {} windows",
                                       m->options_.shares.size(), m->exits_.size()));
  }
  for (double share : m->options_.shares) {
    if (!(share > 0) || !std::isfinite(share)) {
      return InvalidArgument(fmt::format("the share {} of the steps is not above 0", share));
    }
  }
  EW_ASSIGN(m->trunk_, Trunk::Create(model, m->pass_, m->exits_, std::move(documents), max_tokens,
                                     m->options_.trunk));
  EW_RETURN_IF_ERROR(m->MakeAdapters());
  EW_RETURN_IF_ERROR(m->MakeHeads());
  m->SetRecompute(m->options_.recompute, model::kMlpRows);
  m->held_out_ = m->options_.held_out;
  ExitSchedule::Options schedule;
  schedule.order = m->options_.order;
  schedule.exits = static_cast<int>(m->exits_.size());
  schedule.total_steps = m->options_.total_steps;
  schedule.shares = m->options_.shares;
  schedule.seed = m->options_.seed;
  if (m->options_.order == ExitOrder::kAdaptive) {
    if (m->options_.held_out.empty()) {
      return InvalidArgument("the adaptive schedule compares exits on held-out data: give some");
    }
    for (const Exit& e : m->exits_) {
      model::StepWorkOptions work;
      work.tokens = work.supervised = max_tokens;
      work.run = {e.begin, e.end};
      work.train_from = e.begin;
      work.lora_rank = m->options_.lora.r;
      schedule.predicted_seconds.push_back(model::CountStep(model.config(), work).total());
    }
  }
  m->schedule_.emplace(std::move(schedule));
  return m;
}

Status EdgeMethod::MakeAdapters() {
  const int64_t layers = model_.config().num_layers();
  for (size_t e = 0; e < exits_.size(); ++e) {
    if (e == 0 || !cumulative()) {
      model::LoraConfig lora = options_.lora;
      lora.layers_to_transform.reset();
      const int64_t begin = exits_[e].begin, end = cumulative() ? exits_.back().end : exits_[e].end;
      if (end - begin < layers) {
        lora.layers_to_transform.emplace();
        for (int64_t l = begin; l < end; ++l) lora.layers_to_transform->push_back(l);
      }
      // Exits of a frozen trunk are independent: different initial values for each.
      EW_ASSIGN(auto adapter, model::LoraAdapter::Create(model_.config(), lora, options_.seed + e));
      adapters_.push_back(std::make_unique<model::LoraAdapter>(std::move(adapter)));
      // Windows of one adapter may overlap: its arrays are kept by layer.
      auto& sets = layer_params_.emplace_back();
      for (int64_t l = 0; l < layers; ++l) {
        sets.push_back({model::ParameterSet::ForLora(*adapters_.back(), {l, l + 1}), {}});
        for (const model::Parameter& p : sets.back().set.params()) {
          const std::string prefix = cumulative() ? "" : fmt::format("exit.{}.", e);
          sets.back().params.push_back(static_cast<int32_t>(params_.size()));
          params_.push_back({prefix + p.name, p.shape, p.count, p.value, p.grad});
        }
      }
    }
    ExitState& state = states_.emplace_back();
    state.adapter = static_cast<int>(adapters_.size()) - 1;
    state.gradients.layers.resize(static_cast<size_t>(layers));
    for (int64_t l = exits_[e].begin; l < exits_[e].end; ++l) {
      const LayerParams& layer = layer_params_.back()[static_cast<size_t>(l)];
      state.gradients.layers[static_cast<size_t>(l)] =
          layer.set.gradients().layers[static_cast<size_t>(l)];
      state.params.insert(state.params.end(), layer.params.begin(), layer.params.end());
    }
  }
  return Status::Ok();
}

Status EdgeMethod::MakeHeads() {
  const int64_t hidden = model_.config().hidden, vocab = model_.config().vocab;
  const int64_t r = options_.head == HeadMode::kShared ? options_.head_lora_rank : 0;
  for (size_t e = 0; e < states_.size(); ++e) {
    ExitState& s = states_[e];
    // Windows that end at the same layer of one model have one head.
    s.head_owner = static_cast<int>(e);
    for (size_t b = 0; b < e && cumulative(); ++b) {
      if (exits_[b].end == exits_[e].end)
        s.head_owner = std::min(s.head_owner, static_cast<int>(b));
    }
    if (const auto owner = static_cast<size_t>(s.head_owner); owner < e) {
      const ExitState& from = states_[owner];
      s.params.insert(s.params.end(), from.head_params.begin(), from.head_params.end());
      continue;
    }
    const bool norm = TrainsNorm(exits_[e]);
    const bool copy = options_.head == HeadMode::kCopy;
    const int64_t count = HeadParameters(exits_[e]);
    if (count == 0) continue;
    s.values = FloatBuffer::Zeros(count);
    s.grads = FloatBuffer::Zeros(count);
    float* at = s.values.data();
    const auto add = [&](const char* name, std::vector<int64_t> shape) {
      float* value = at;
      int64_t n = 1;
      for (int64_t d : shape) n *= d;
      at += n;
      s.head_params.push_back(static_cast<int32_t>(params_.size()));
      params_.push_back(
          {fmt::format("exit.{}.{}", e, name), std::move(shape), n, value, GradOf(s, value)});
      return value;
    };
    if (norm) {
      s.norm = add("norm.weight", {hidden});
      std::copy_n(model_.weights().final_norm, hidden, s.norm);
    }
    if (r > 0) {
      s.head_lora_a = add("lm_head.lora_A.weight", {r, hidden});
      s.head_lora_b = add("lm_head.lora_B.weight", {vocab, r});
      Rng rng(options_.seed, RngStream::kInit, (uint64_t{1} << 40) + e);
      const double bound = 1.0 / std::sqrt(static_cast<double>(hidden));
      for (int64_t i = 0; i < r * hidden; ++i) {
        s.head_lora_a[i] = static_cast<float>((2 * rng.NextDouble() - 1) * bound);
      }
    }
    if (copy) {
      s.head = add("lm_head.weight", {vocab, hidden});
      EW_ASSIGN(const model::HeldWeights held, model::HeldWeights::Head(model_));
      kernels::WeightRowsToF32(model_.weights().head, 0, vocab, s.head);
      s.head_ref = kernels::WeightRef::Dense(s.head, vocab, hidden);
    }
    s.params.insert(s.params.end(), s.head_params.begin(), s.head_params.end());
  }
  return Status::Ok();
}

float* EdgeMethod::GradOf(const ExitState& s, const float* value) const {
  if (value == nullptr) return nullptr;
  return const_cast<float*>(s.grads.data()) + (value - s.values.data());
}

const model::LoraAdapter& EdgeMethod::adapter(int exit) const {
  return *adapters_[static_cast<size_t>(states_[static_cast<size_t>(exit)].adapter)];
}

model::ExitHead EdgeMethod::head(int exit) const {
  const ExitState& s = HeadOf(exit);
  model::ExitHead h;
  h.norm = s.norm;
  if (s.head_lora_a != nullptr) {
    h.lora_r = options_.head_lora_rank;
    const double alpha = options_.head_lora_alpha > 0
                             ? options_.head_lora_alpha
                             : 2.0 * static_cast<double>(options_.head_lora_rank);
    h.lora_scale = static_cast<float>(alpha / static_cast<double>(options_.head_lora_rank));
    h.lora_a = s.head_lora_a;
    h.lora_b = s.head_lora_b;
  }
  if (s.head != nullptr) h.head = &s.head_ref;
  return h;
}

std::pair<int64_t, int64_t> EdgeMethod::RatePhase(int64_t step, int64_t total_steps) {
  return options_.rate_per_window ? schedule_->Phase(step) : std::pair{int64_t{0}, total_steps};
}

int EdgeMethod::ExitAt(int64_t step) { return schedule_->ExitAt(step); }

model::PassOptions EdgeMethod::WindowPass(int exit, bool train) {
  const Exit& e = exits_[static_cast<size_t>(exit)];
  model::PassOptions o;
  o.begin = e.begin;
  o.end = e.end;
  o.lora = &adapter(exit);
  o.lora_begin = e.begin;
  o.head = head(exit);
  o.activation_bits = options_.activation_bits;
  o.whole_head = options_.whole_head;
  o.mlp_rows = mlp_rows_;
  if (!train) return o;
  if (teacher_.weight > 0) o.teacher = &teacher_;
  const ExitState& s = HeadOf(exit);
  o.gradients = &states_[static_cast<size_t>(exit)].gradients;
  o.recompute = recompute_;
  o.layers_in_memory = layers_in_memory_;
  o.spill = spill_;
  o.dropout = static_cast<float>(options_.lora.lora_dropout);
  o.head_skip_below = options_.head_skip_below;
  o.times = options_.times;
  o.backward.mode = options_.backward;
  o.backward.stochastic = options_.backward == kernels::BackwardMode::kInteger;
  o.head.dnorm = GradOf(s, s.norm);
  o.head.dlora_a = GradOf(s, s.head_lora_a);
  o.head.dlora_b = GradOf(s, s.head_lora_b);
  o.head.dhead = GradOf(s, s.head);
  return o;
}

Result<const float*> EdgeMethod::Start(const TokenBatch& batch, int exit, int64_t row) {
  if (!trunk_->HasTrunk(exit)) return static_cast<const float*>(nullptr);
  if (batch.size() > pass_.max_tokens()) {
    return InvalidArgument(fmt::format("a batch of {} tokens, more than planned", batch.size()));
  }
  float* start = start_.data() + row * pass_.max_tokens() * model_.config().hidden;
  EW_RETURN_IF_ERROR(trunk_->StartState(batch, exit, &adapter(exit), start));
  return static_cast<const float*>(start);
}

// What the adaptive schedule decides by: every exit before the first step, then the one whose turn
// has ended.
Status EdgeMethod::ReportLosses(int64_t step) {
  for (int e = 0; e < static_cast<int>(exits_.size()); ++e) {
    if (step > 0 && e != current_) continue;
    LossSum sum;
    for (const TokenBatch& batch : held_out_) {
      EW_ASSIGN(const LossSum one, EvaluateExit(batch, e));
      sum.loss_sum += one.loss_sum;
      sum.tokens += one.tokens;
    }
    schedule_->ReportLoss(e, step, sum.mean());
  }
  reported_ = step;
  return Status::Ok();
}

Status EdgeMethod::BeginStep(int64_t step, std::vector<int32_t>* active) {
  if (schedule_->WantsLoss(step) && reported_ != step) {
    if (step > 0) current_ = schedule_->ExitAt(step - 1);
    EW_RETURN_IF_ERROR(ReportLosses(step));
  }
  current_ = schedule_->ExitAt(step);
  const double begin = Now();
  active->clear();
  for (int exit : ExitsOfStep()) {
    EW_RETURN_IF_ERROR(trunk_->Prepare(exit, &adapter(exit), stop_, progress_));
    const std::vector<int32_t>& params = states_[static_cast<size_t>(exit)].params;
    active->insert(active->end(), params.begin(), params.end());
  }
  times_.trunk += Now() - begin;
  // (A single exit's are in the order of its parts.)
  if (options_.windows_per_step > 1) std::sort(active->begin(), active->end());
  for (int32_t i : *active) {
    const model::Parameter& p = params_[static_cast<size_t>(i)];
    std::fill_n(p.grad, p.count, 0.0f);
  }
  return Status::Ok();
}

std::vector<int> EdgeMethod::ExitsOfStep() const {
  std::vector<int> exits;
  for (int i = 0; i < options_.windows_per_step; ++i) {
    exits.push_back((current_ + i) % static_cast<int>(exits_.size()));
  }
  return exits;
}

}  // namespace edgewise::tune
