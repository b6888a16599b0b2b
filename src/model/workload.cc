#include "model/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "base/checked.h"
#include "model/matrix_form.h"
#include "model/pass_layout.h"
#include "model/weights.h"

namespace edgewise::model {
namespace {

using plan::KernelKind;
using plan::Op;
using plan::Recompute;
using plan::Stage;

constexpr int64_t kSharedScratch = int64_t{12} << 20;
constexpr int64_t kScratchPerThread = int64_t{2} << 20;

// Linears that read the same rows.
constexpr LinearKind kAttentionInputs[] = {LinearKind::kQ, LinearKind::kK, LinearKind::kV};
constexpr LinearKind kAttentionOutput[] = {LinearKind::kO};
constexpr LinearKind kMlpInputs[] = {LinearKind::kGate, LinearKind::kUp};
constexpr LinearKind kMlpOutput[] = {LinearKind::kDown};

class Describer {
 public:
  Describer(const ModelConfig& c, const Model* model, const WorkloadOptions& o)
      : c_(c), model_(model), o_(o) {}

  // The form of every matrix, before anything else. Error: a header that cannot be read.
  Status ReadForms() {
    for (int64_t l = 0; l < c_.num_layers(); ++l) {
      auto& layer = forms_.emplace_back();
      for (LinearKind kind : kAllLinears) {
        const LinearShape s = ShapeOf(c_, kind);
        MatrixForm& form = layer[static_cast<size_t>(kind)];
        if (model_ == nullptr) {
          form = FormOfShape(s.out, s.in, Full() ? 32 : o_.form.bits,
                             o_.form.bits < 16 ? o_.form.sparsity : 0, o_.form.blocks);
        } else {
          EW_ASSIGN(form, FormOf(*model_, {WeightRole::kLinear, l, kind}));
        }
      }
    }
    const int bits = Full() ? 32 : o_.form.bits >= 16 ? o_.form.bits : o_.form.head_bits;
    head_ = FormOfShape(c_.vocab, c_.hidden, bits, 0, false);
    if (model_ != nullptr) {
      EW_ASSIGN(head_, FormOf(*model_, {WeightRole::kHead, -1, LinearKind::kQ}));
    }
    return Status::Ok();
  }

  plan::Workload DescribeForward(LayerRange range) {
    plan::Workload w;
    w.tokens = o_.tokens;
    AddUnits(&w);
    if (range.begin == 0) w.stages.push_back(Embedding());
    for (int64_t l = range.begin; l < range.end; ++l) w.stages.push_back(Layer(l, false, false));
    return w;
  }

  plan::Workload Describe(int64_t begin, int64_t end, int64_t train_from) {
    plan::Workload w;
    w.tokens = o_.tokens;
    w.micro_batches = o_.micro_batches;
    w.recompute = o_.recompute;
    lowest_ = train_from;
    AddUnits(&w);
    // Adaptive tuning starts from cached states above the embedding.
    if (begin == 0) w.stages.push_back(Embedding());
    for (int64_t l = begin; l < end; ++l) {
      Stage s = Layer(l, l >= train_from, false);
      if (l >= train_from) s.kept_bytes = Kept(l);
      w.stages.push_back(std::move(s));
    }
    AddHead(&w);
    for (int64_t l = end - 1; l >= train_from; --l) w.stages.push_back(Layer(l, true, true));
    Memory(begin, end, train_from, &w);
    return w;
  }

 private:
  const MatrixForm& Linear(int64_t layer, LinearKind kind) const {
    return forms_[static_cast<size_t>(layer)][static_cast<size_t>(kind)];
  }
  // Layers, then the embedding where it is a matrix of its own, then the head.
  void AddUnits(plan::Workload* w) const {
    const WeightStream* stream = model_ != nullptr ? model_->stream() : nullptr;
    for (int64_t l = 0; l < c_.num_layers(); ++l) {
      int64_t bytes = 0;
      for (LinearKind kind : kAllLinears) bytes += Linear(l, kind).bytes;
      if (stream != nullptr) bytes = stream->unit_bytes(stream->layer_unit(l));
      w->units.push_back({fmt::format("layer {}", l), bytes});
    }
    // Of an embedding only rows are read, unless it is sparse.
    if (stream != nullptr && !stream->CanGather() && !c_.tied) {
      w->units.push_back({"embedding", stream->unit_bytes(stream->embedding_unit())});
    }
    if (o_.whole_head || HeadBlocks() == 1) {
      w->units.push_back({"head", stream != nullptr ? stream->head_bytes() : head_.bytes});
      return;
    }
    for (int64_t b = 0, blocks = HeadBlocks(); b < blocks; ++b) {
      w->units.push_back(
          {fmt::format("head {} of {}", b + 1, blocks),
           stream != nullptr ? stream->unit_bytes(stream->head_unit(b)) : head_.bytes / blocks});
    }
  }
  int64_t HeadBlocks() const {
    if (model_ != nullptr && model_->stream() != nullptr) return model_->stream()->head_blocks();
    if (head_.sparsity > 0 || head_.blocks) return 1;
    return std::max<int64_t>(1, CeilDiv(head_.bytes, StreamOptions{}.head_block_bytes));
  }
  Stage Embedding() const {
    Stage embed;
    embed.name = "embedding";
    const WeightStream* stream = model_ != nullptr ? model_->stream() : nullptr;
    const bool gathered = stream == nullptr || stream->CanGather();
    embed.unit = gathered ? -1 : static_cast<int32_t>(c_.num_layers());
    embed.ops.push_back(Bytes("gather", KernelKind::kElementwise, c_.hidden));
    return embed;
  }
  bool Full() const { return o_.method == WorkloadMethod::kFull; }

  // Work on arrays of `width` fp32 values a token, `count` times; `head_dim` of kRotary.
  Op Bytes(const char* name, KernelKind kind, int64_t width, double count = 1,
           int64_t head_dim = 0) const {
    Op op;
    op.name = name;
    op.kind = kind;
    op.tokens = o_.tokens;
    op.out = width;
    op.rank = head_dim;
    constexpr double kArrays[] = {2, 2, 4, 2, 3, 5};  // kElementwise .. kGateBackward
    const double arrays =
        kArrays[static_cast<size_t>(kind) - static_cast<size_t>(KernelKind::kElementwise)];
    op.gops = count * arrays * 4e-9 * static_cast<double>(o_.tokens * width);
    return op;
  }

  Stage Layer(int64_t l, bool trained, bool backward) const {
    Stage s;
    s.layer = static_cast<int32_t>(l);
    s.unit = static_cast<int32_t>(l);
    s.backward = backward;
    s.name = fmt::format("layer {}{}", l, backward ? " backward" : "");
    s.recomputes = backward && o_.recompute != Recompute::kNone;
    if (!backward || o_.recompute == Recompute::kLayer) AddAttentionForward(l, trained, &s);
    if (!backward || s.recomputes) AddMlpForward(l, trained, /*again=*/backward, &s);
    if (backward) AddBackward(l, &s);
    return s;
  }
  // Tokens that pass through the MLP of a layer at a time.
  int64_t MlpTokens(bool trained) const {
    const bool kept = trained && o_.recompute == Recompute::kNone;
    return kept || o_.mlp_tokens == 0 ? o_.tokens : std::min(o_.mlp_tokens, o_.tokens);
  }

  // Linears of one form and input, as one matrix.
  Op LinearOp(int64_t l, std::span<const LinearKind> kinds, KernelKind what, int64_t tokens) const {
    Op op;
    op.kind = what;
    op.tokens = tokens;
    op.share = static_cast<double>(o_.tokens) / static_cast<double>(tokens);
    for (LinearKind kind : kinds) {
      const LinearShape shape = ShapeOf(c_, kind);
      const MatrixForm& form = Linear(l, kind);
      op.name += (op.name.empty() ? "" : ", ") + std::string(LinearName(kind));
      op.out += shape.out;
      op.in = shape.in;
      op.bits = form.bits;
      op.sparsity = form.sparsity;
      op.blocks = form.blocks;
      op.group = form.group;
      op.weight_bytes += form.bytes;
    }
    op.gops = 2e-9 * static_cast<double>(o_.tokens) * static_cast<double>(op.out) *
              static_cast<double>(op.in);
    return op;
  }

  Op Lora(LinearKind kind, KernelKind what, int64_t tokens) const {
    const LinearShape s = ShapeOf(c_, kind);
    Op op;
    op.name = std::string(LinearName(kind)) + " adapter";
    op.kind = what;
    op.tokens = tokens;
    op.share = static_cast<double>(o_.tokens) / static_cast<double>(tokens);
    op.out = s.out;
    op.in = s.in;
    op.rank = o_.rank;
    // Two skinny products forward, four backward.
    op.gops = (what == KernelKind::kLora ? 2e-9 : 4e-9) * static_cast<double>(o_.tokens * o_.rank) *
              static_cast<double>(s.in + s.out);
    return op;
  }

  Op Attention(int64_t l, KernelKind kind) const {
    const int64_t window = c_.layers[static_cast<size_t>(l)].window;
    Op op;
    op.name = kind == KernelKind::kAttention ? "attention" : "attention backward";
    op.kind = kind;
    op.tokens = o_.document_tokens > 0 ? std::min(o_.document_tokens, o_.tokens) : o_.tokens;
    op.out = c_.q_dim();
    op.in = c_.kv_dim();
    op.rank = c_.head_dim;
    const auto n = static_cast<double>(op.tokens);
    const double w = window > 0 ? std::min(static_cast<double>(window), n) : n;
    const double documents = static_cast<double>(o_.tokens) / n;
    op.gops = (kind == KernelKind::kAttention ? 4e-9 : 10e-9) * documents *
              (w * w / 2 + (n - w) * w) * static_cast<double>(c_.q_dim());
    return op;
  }

  // Linears that share their input are one product when their weights have one form.
  void AddProjections(int64_t l, std::span<const LinearKind> kinds, bool trained, int64_t tokens,
                      Stage* s) const {
    const MatrixForm& first = Linear(l, kinds[0]);
    const bool one = std::all_of(kinds.begin(), kinds.end(), [&](LinearKind kind) {
      const MatrixForm& f = Linear(l, kind);
      return f.bits == first.bits && f.blocks == first.blocks && f.group == first.group &&
             std::abs(f.sparsity - first.sparsity) < 0.02;
    });
    for (size_t i = 0; i < kinds.size(); i += one ? kinds.size() : 1) {
      s->ops.push_back(
          LinearOp(l, one ? kinds : kinds.subspan(i, 1), KernelKind::kLinearForward, tokens));
    }
    if (!trained || Full()) return;
    for (LinearKind kind : kinds) s->ops.push_back(Lora(kind, KernelKind::kLora, tokens));
  }

  void AddAttentionForward(int64_t l, bool trained, Stage* s) const {
    AddProjections(l, kAttentionInputs, trained, o_.tokens, s);
    AddProjections(l, kAttentionOutput, trained, o_.tokens, s);
    s->ops.push_back(Attention(l, KernelKind::kAttention));
    s->ops.push_back(Bytes("norm", KernelKind::kNorm, c_.hidden));
    s->ops.push_back(
        Bytes("rotary", KernelKind::kRotary, c_.q_dim() + c_.kv_dim(), 1, c_.head_dim));
    s->ops.push_back(Bytes("residual", KernelKind::kElementwise, c_.hidden, trained ? 1 : 0));
  }
  // `again`: nobody wants its output.
  void AddMlpForward(int64_t l, bool trained, bool again, Stage* s) const {
    const int64_t tokens = MlpTokens(trained);
    AddProjections(l, kMlpInputs, trained, tokens, s);
    if (!again || c_.sandwich_norms) {
      AddProjections(l, kMlpOutput, trained, tokens, s);
    } else if (!Full()) {
      s->ops.push_back(Lora(LinearKind::kDown, KernelKind::kLora, tokens));
      s->ops.back().gops /= 2;  // one of the two products
    }
    s->ops.push_back(Bytes("norm", KernelKind::kNorm, c_.hidden));
    s->ops.push_back(Bytes("gate", KernelKind::kGate, c_.ffn));
    s->ops.push_back(
        Bytes("residual", KernelKind::kElementwise, c_.hidden, trained && !again ? 1 : 0));
  }

  void AddBackward(int64_t l, Stage* s) const {
    const KernelKind through =
        o_.integer_backward ? KernelKind::kLinearBackwardInt8 : KernelKind::kLinearBackward;
    for (LinearKind kind : kAllLinears) {
      // Below the lowest layer nothing wants a gradient.
      const bool input = kind == LinearKind::kQ || kind == LinearKind::kK || kind == LinearKind::kV;
      const int64_t tokens = input || kind == LinearKind::kO ? o_.tokens : MlpTokens(true);
      const LinearKind one[] = {kind};
      if (!input || l > lowest_ || Full()) s->ops.push_back(LinearOp(l, one, through, tokens));
      if (Full()) {
        s->ops.push_back(LinearOp(l, one, KernelKind::kWeightGradient, tokens));
      } else {
        s->ops.push_back(Lora(kind, KernelKind::kLoraBackward, tokens));
      }
    }
    s->ops.push_back(Attention(l, KernelKind::kAttentionBackward));
    // What norms and the gated unit gave is computed again.
    s->ops.push_back(Bytes("norms again", KernelKind::kNorm, c_.hidden, 2));
    s->ops.push_back(Bytes("norms backward", KernelKind::kNormBackward, c_.hidden, 2));
    s->ops.push_back(
        Bytes("rotary", KernelKind::kRotary, c_.q_dim() + c_.kv_dim(), 1, c_.head_dim));
    s->ops.push_back(Bytes("gate again", KernelKind::kGate, c_.ffn));
    s->ops.push_back(Bytes("gate backward", KernelKind::kGateBackward, c_.ffn));
  }

  Stage HeadStage() const {
    Stage s;
    s.name = "head";
    Op op;
    op.name = "head and loss";
    op.kind = o_.integer_backward ? KernelKind::kHeadLossInt8 : KernelKind::kHeadLoss;
    op.tokens = static_cast<int64_t>(o_.supervised * static_cast<double>(o_.tokens));
    op.out = c_.vocab;
    op.in = c_.hidden;
    op.bits = head_.bits;
    op.group = head_.group;
    op.rank = o_.method == WorkloadMethod::kEdge ? o_.head_rank : 0;
    op.skip_below = o_.head_skip_below;
    op.kept_share = o_.head_kept_share;
    op.weight_bytes = head_.bytes;
    op.gops = (Full() ? 6e-9 : 4e-9) * static_cast<double>(op.tokens) *
              static_cast<double>(c_.vocab) * static_cast<double>(c_.hidden);
    s.ops.push_back(op);
    s.ops.push_back(Bytes("norm", KernelKind::kNorm, c_.hidden));
    s.ops.push_back(Bytes("norm backward", KernelKind::kNormBackward, c_.hidden));
    return s;
  }

  // The head as the fused loss goes through its blocks (kernels::HeadLossOrder): up for the loss,
  // where the head itself is tuned down again, then the lowest ones for what was put off.
  void AddHead(plan::Workload* w) const {
    const int64_t blocks = o_.whole_head ? 1 : HeadBlocks();
    const auto first = static_cast<int32_t>(static_cast<int64_t>(w->units.size()) - blocks);
    const Stage whole = HeadStage();
    const Op& op = whole.ops[0];
    const bool tuned = op.rank > 0 || Full();
    std::vector<int64_t> order;
    // (A few MiB of hidden rows and gradients at a time: kernels/loss.cc.)
    const int64_t row = (head_.bits < 16 ? 5 : 8) * c_.hidden + 8 * op.rank;
    const int64_t chunks = std::max<int64_t>(1, CeilDiv(op.tokens * row, int64_t{10} << 20));
    for (int64_t c = 0; c < chunks; ++c) {
      for (int64_t b = 0; b < blocks; ++b) order.push_back(b);
      for (int64_t b = blocks - 1; tuned && b >= 0; --b) order.push_back(b);
      const int64_t put_off = std::min<int64_t>(8192, c_.vocab / 8);
      for (int64_t b = 0; op.skip_below > 0 && b * c_.vocab < put_off * blocks; ++b) {
        order.push_back(b);
      }
    }
    if (blocks == 1) order.resize(1);
    // Of the loss's sweep, where there are others.
    const double kept = op.kept_share >= 0 ? op.kept_share : 0.5;
    const double up = tuned ? (1 + kept) / (1 + 2 * kept) : 1;
    const auto times = static_cast<double>(blocks * chunks);
    for (size_t i = 0; i < order.size(); ++i) {
      Stage s = whole;
      s.unit = first + static_cast<int32_t>(order[i]);
      s.joined = i + 1 < order.size();
      const size_t at = i % (order.size() / static_cast<size_t>(chunks));
      const bool is_up = at < static_cast<size_t>(blocks);
      const bool is_down = !is_up && tuned && at < static_cast<size_t>(2 * blocks);
      if (order.size() > 1) {
        s.name = fmt::format("head {} of {}{}", order[i] + 1, blocks,
                             is_up     ? ""
                             : is_down ? " gradient"
                                       : " again");
        s.ops[0].share = (is_up ? up : is_down ? 1 - up : 0) / times;
        s.ops[0].gops *= s.ops[0].share;
        if (i > 0) s.ops.resize(1);
        if (!is_up && !is_down) s.ops.clear();
      }
      w->stages.push_back(std::move(s));
    }
  }

  // What a forward stage keeps, as LayOut carves it.
  int64_t Kept(int64_t layer) const {
    Carver carver;
    carver.Floats(o_.tokens * c_.hidden);
    if (o_.recompute == Recompute::kLayer) return carver.used();
    const bool mlp = o_.recompute == Recompute::kNone;
    BlockNeeds needs;
    needs.rows = o_.tokens;
    needs.mlp_rows = mlp ? o_.tokens : 0;
    needs.backward = true;
    CarveActivations(carver, c_, layer, needs);
    constexpr int64_t kAttentionKinds = 4;
    if (!Full()) carver.Floats((mlp ? kLinearKinds : kAttentionKinds) * o_.tokens * o_.rank);
    return carver.used();
  }

  void Memory(int64_t begin, int64_t end, int64_t train_from, plan::Workload* w) const {
    int64_t trained = 0;
    // A step of an explicit window updates that window; its caller knows the other states.
    const bool windows = o_.method == WorkloadMethod::kEdge && o_.window.end < 0;
    for (int64_t l = windows ? o_.first_layer : train_from; l < end; ++l) {
      for (LinearKind kind : kAllLinears) {
        const LinearShape s = ShapeOf(c_, kind);
        trained += Full() ? s.in * s.out : o_.rank * (s.in + s.out);
      }
    }
    trained += o_.method == WorkloadMethod::kEdge ? o_.head_rank * (c_.hidden + c_.vocab) : 0;
    if (Full()) trained = c_.parameter_count();
    // fp32 values (full: they are the weights), gradients, two moments.
    w->state_bytes = trained * 4 * (Full() ? 3 : 4);
    w->optimizer_gbytes = static_cast<double>(trained) * 28e-9;
    BlockNeeds needs;
    needs.rows = o_.tokens;
    needs.mlp_rows = MlpTokens(true);
    needs.backward = true;
    Carver scratch;
    CarveScratch(scratch, c_, needs);
    // The state on its way up and the gradient on its way down.
    Carver micro;
    micro.Floats(o_.tokens * c_.hidden);
    micro.Floats(o_.tokens * c_.hidden);
    w->micro_bytes = micro.used();
    w->slot_bytes = ActivationSpill::SlotBytes(Kept(end - 1));
    Carver shared;
    if (o_.recompute != Recompute::kNone || train_from > begin) {
      needs.attention = o_.recompute == Recompute::kLayer || train_from > begin;
      needs.mlp_rows = MlpTokens(false);
      CarveSharedActivations(shared, c_, needs);
    }
    w->scratch_bytes =
        scratch.high() + shared.high() + kSharedScratch + o_.threads * kScratchPerThread;
    if (o_.method == WorkloadMethod::kEdge) w->scratch_bytes += 2 * o_.tokens * c_.hidden * 4;
    w->runtime_bytes = o_.runtime_bytes;
  }

  const ModelConfig& c_;
  const Model* model_;
  const WorkloadOptions& o_;
  std::vector<std::array<MatrixForm, kLinearKinds>> forms_;
  MatrixForm head_;
  int64_t lowest_ = 0;  // trained layer
};

Status CheckOptions(const WorkloadOptions& o) {
  if (o.tokens < 1 || o.micro_batches < 1 || o.rank < 1 || o.mlp_tokens < 0) {
    return InvalidArgument("tokens, micro-batches and rank are at least 1");
  }
  return Status::Ok();
}

}  // namespace

Result<WorkloadMethod> ParseWorkloadMethod(std::string_view name) {
  if (name == "lora") return WorkloadMethod::kLora;
  if (name == "last-n") return WorkloadMethod::kLastN;
  if (name == "full") return WorkloadMethod::kFull;
  if (name == "edge") return WorkloadMethod::kEdge;
  return InvalidArgument(fmt::format("'{}' is not a method: lora, last-n, full, edge", name));
}

Result<plan::Workload> DescribeStep(const ModelConfig& config, const Model* model,
                                    const WorkloadOptions& o) {
  EW_RETURN_IF_ERROR(CheckOptions(o));
  const int64_t layers = config.num_layers();
  int64_t begin = 0, end = layers, train_from = 0;
  if (o.method == WorkloadMethod::kLastN) train_from = std::max<int64_t>(0, layers - o.last_layers);
  if (o.method == WorkloadMethod::kEdge && o.window.end >= 0) {
    if (o.window.begin < 0 || o.window.begin >= o.window.end || o.window.end > layers) {
      return InvalidArgument(fmt::format("a window of layers {} .. {}, the model has {}",
                                         o.window.begin, o.window.end, layers));
    }
    train_from = o.window.begin;
    begin = o.trunk ? 0 : train_from;
    end = o.window.end;
  } else if (o.method == WorkloadMethod::kEdge) {
    if (o.first_layer < 0 || o.first_layer >= layers) {
      return InvalidArgument(
          fmt::format("tuning from layer {} on in a model of {} layers", o.first_layer, layers));
    }
    const int64_t tuned = layers - o.first_layer;
    const int64_t exits = o.exits > 0 ? o.exits : std::min<int64_t>(4, tuned);
    if (exits > tuned) return InvalidArgument(fmt::format("{} exits of {} layers", exits, tuned));
    begin = train_from = o.first_layer + (2 * (exits - 1) * tuned + exits) / (2 * exits);
  }
  Describer describer(config, model, o);
  EW_RETURN_IF_ERROR(describer.ReadForms());
  plan::Workload w = describer.Describe(begin, end, train_from);
  constexpr const char* kNames[] = {"lora", "last-n", "full", "edge"};
  w.method = kNames[static_cast<int>(o.method)];
  return w;
}

Result<plan::Workload> DescribeForward(const ModelConfig& config, const Model* model,
                                       LayerRange range, const WorkloadOptions& o) {
  EW_RETURN_IF_ERROR(CheckOptions(o));
  if (range.begin < 0 || range.begin > range.end || range.end > config.num_layers()) {
    return InvalidArgument(
        fmt::format("layers {} .. {} of {}", range.begin, range.end, config.num_layers()));
  }
  Describer describer(config, model, o);
  EW_RETURN_IF_ERROR(describer.ReadForms());
  return describer.DescribeForward(range);
}

}  // namespace edgewise::model
