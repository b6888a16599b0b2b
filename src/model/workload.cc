#include "model/workload.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/packed/packed_matrix.h"
#include "model/pass_layout.h"
#include "model/weights.h"

namespace edgewise::model {
namespace {

using plan::KernelKind;
using plan::Op;
using plan::Stage;

constexpr int64_t kSharedScratch = int64_t{12} << 20;
constexpr int64_t kScratchPerThread = int64_t{2} << 20;

// One matrix in the form in which it is held.
struct Held {
  int bits = 16;
  double sparsity = 0;
  bool blocks = false;
  int64_t bytes = 0;
};

Held FromForm(const WeightForm& f, int bits, int64_t rows, int64_t cols, bool sparse) {
  Held h;
  h.bits = bits;
  const double weights = static_cast<double>(rows) * static_cast<double>(cols);
  if (bits >= 16) {
    h.bytes = static_cast<int64_t>(weights * bits / 8);
    return h;
  }
  h.sparsity = sparse ? f.sparsity : 0;
  h.blocks = f.blocks;
  // Values, a mask bit per weight where zeros lie anywhere, a scale per 128 columns or per row.
  double bits_each = bits * (1 - h.sparsity);
  if (h.sparsity > 0 && !f.blocks) bits_each += 1;
  bits_each += h.sparsity > 0 ? 16.0 / static_cast<double>(cols) : 16.0 / 128;
  h.bytes = static_cast<int64_t>(weights * bits_each / 8);
  return h;
}

Held FromWeights(const kernels::WeightRef& w) {
  Held h;
  if (w.packed == nullptr) {
    h.bits = w.dtype == DType::kF32 ? 32 : 16;
    h.bytes = w.rows * w.cols * h.bits / 8;
    return h;
  }
  const kernels::PackedFormat& f = w.packed->format();
  h.bits = f.bits;
  h.bytes = static_cast<int64_t>(w.packed->bytes().size());
  const double dense = static_cast<double>(w.rows) * static_cast<double>(w.cols) * f.bits / 8;
  const auto size = static_cast<double>(h.bytes);
  h.blocks = f.structure == kernels::Structure::kBlock;
  if (h.blocks) h.sparsity = std::clamp(1 - size / dense, 0.0, 0.95);
  if (f.structure == kernels::Structure::kUnstructured) {
    h.sparsity = std::clamp(1 - (size - dense / f.bits) / dense, 0.0, 0.95);
  }
  if (f.structure == kernels::Structure::kNM) h.sparsity = 1.0 - double(f.nm_n) / f.nm_m;
  return h;
}

class Describer {
 public:
  Describer(const ModelConfig& c, const Model* model, const WorkloadOptions& o)
      : c_(c), model_(model), o_(o) {}

  plan::Workload Describe(int64_t begin, int64_t end, int64_t train_from) {
    plan::Workload w;
    w.tokens = o_.tokens;
    w.micro_batches = o_.micro_batches;
    w.recompute = o_.recompute;
    for (int64_t l = 0; l < c_.num_layers(); ++l) {
      int64_t bytes = 0;
      for (LinearKind kind : kAllLinears) bytes += Linear(l, kind).bytes;
      w.units.push_back({fmt::format("layer {}", l), bytes});
    }
    const Held head = Head();
    if (!c_.tied) w.units.push_back({"embedding", head.bytes});
    w.units.push_back({c_.tied ? "embedding and head" : "head", head.bytes});

    // Adaptive tuning starts from cached states above the embedding.
    if (begin == 0) {
      Stage embed;
      embed.name = "embedding";
      embed.unit = static_cast<int32_t>(c_.num_layers());
      embed.ops.push_back(Bytes("gather", 2.0 * static_cast<double>(c_.hidden)));
      w.stages.push_back(std::move(embed));
    }
    for (int64_t l = begin; l < end; ++l) {
      Stage s = Layer(l, l >= train_from, false);
      if (l >= train_from) s.kept_bytes = Kept(l);
      w.stages.push_back(std::move(s));
    }
    w.stages.push_back(HeadStage(head, static_cast<int32_t>(w.units.size()) - 1));
    for (int64_t l = end - 1; l >= train_from; --l) w.stages.push_back(Layer(l, true, true));
    Memory(begin, end, train_from, &w);
    return w;
  }

 private:
  Held Linear(int64_t layer, LinearKind kind) const {
    const LinearShape s = ShapeOf(c_, kind);
    if (model_ != nullptr && model_->stream() == nullptr) {
      return FromWeights(model_->weights().layers[static_cast<size_t>(layer)][kind].weight);
    }
    return FromForm(o_.form, Full() ? 32 : o_.form.bits, s.out, s.in, true);
  }
  Held Head() const {
    if (model_ != nullptr && model_->stream() == nullptr)
      return FromWeights(model_->weights().head);
    const int bits = Full() ? 32 : o_.form.bits >= 16 ? o_.form.bits : o_.form.head_bits;
    return FromForm(o_.form, bits, c_.vocab, c_.hidden, false);
  }
  bool Full() const { return o_.method == WorkloadMethod::kFull; }

  // Elementwise work: fp32 values read or written a token.
  Op Bytes(const char* name, double values) const {
    Op op;
    op.name = name;
    op.kind = KernelKind::kElementwise;
    op.tokens = o_.tokens;
    op.gops = values * 4e-9 * static_cast<double>(o_.tokens);
    return op;
  }

  Stage Layer(int64_t l, bool trained, bool backward) const {
    Stage s;
    s.layer = static_cast<int32_t>(l);
    s.unit = static_cast<int32_t>(l);
    s.backward = backward;
    s.name = fmt::format("layer {}{}", l, backward ? " backward" : "");
    s.recomputes = backward && o_.recompute;
    if (!backward || s.recomputes) AddForward(l, trained, &s);
    if (backward) AddBackward(l, &s);
    return s;
  }

  Op LinearOp(int64_t l, LinearKind kind, KernelKind what) const {
    const LinearShape shape = ShapeOf(c_, kind);
    const Held held = Linear(l, kind);
    Op op;
    op.name = std::string(LinearName(kind));
    op.kind = what;
    op.tokens = o_.tokens;
    op.out = shape.out;
    op.in = shape.in;
    op.bits = held.bits;
    op.sparsity = held.sparsity;
    op.blocks = held.blocks;
    op.weight_bytes = held.bytes;
    op.gops = 2e-9 * static_cast<double>(o_.tokens) * static_cast<double>(shape.out) *
              static_cast<double>(shape.in);
    return op;
  }

  Op Lora(LinearKind kind, int products) const {
    const LinearShape s = ShapeOf(c_, kind);
    Op op;
    op.name = std::string(LinearName(kind)) + " adapter";
    op.kind = KernelKind::kLora;
    op.tokens = o_.tokens;
    op.out = s.out;
    op.in = s.in;
    // As measured: `products` of the six skinny products of a step, on mean sizes.
    op.gops = products * 2e-9 * static_cast<double>(o_.tokens * o_.rank) *
              static_cast<double>(s.in + s.out) / 2;
    return op;
  }

  Op Attention(int64_t l, KernelKind kind, double per_score) const {
    const int64_t window = c_.layers[static_cast<size_t>(l)].window;
    const auto n = static_cast<double>(o_.tokens);
    const double w = window > 0 ? std::min(static_cast<double>(window), n) : n;
    Op op;
    op.name = kind == KernelKind::kAttention ? "attention" : "attention backward";
    op.kind = kind;
    op.tokens = o_.tokens;
    op.out = c_.q_dim();
    op.in = c_.kv_dim();
    op.gops = per_score * 1e-9 * (w * w / 2 + (n - w) * w) * static_cast<double>(c_.q_dim());
    return op;
  }

  void AddForward(int64_t l, bool trained, Stage* s) const {
    for (LinearKind kind : kAllLinears) {
      s->ops.push_back(LinearOp(l, kind, KernelKind::kLinearForward));
      if (trained && !Full()) s->ops.push_back(Lora(kind, 2));
    }
    s->ops.push_back(Attention(l, KernelKind::kAttention, 4));
    // Two norms and two residuals, rotation, the gated unit.
    s->ops.push_back(Bytes("norms", 10.0 * static_cast<double>(c_.hidden) +
                                        2.0 * static_cast<double>(c_.q_dim() + c_.kv_dim())));
    s->ops.push_back(Bytes("gate", 3.0 * static_cast<double>(c_.ffn)));
  }

  void AddBackward(int64_t l, Stage* s) const {
    for (LinearKind kind : kAllLinears) {
      s->ops.push_back(LinearOp(l, kind, KernelKind::kLinearBackward));
      if (Full()) {
        s->ops.push_back(LinearOp(l, kind, KernelKind::kWeightGradient));
      } else {
        s->ops.push_back(Lora(kind, 4));
      }
    }
    s->ops.push_back(Attention(l, KernelKind::kAttentionBackward, 10));
    s->ops.push_back(Bytes("norms", 16.0 * static_cast<double>(c_.hidden) +
                                        2.0 * static_cast<double>(c_.q_dim() + c_.kv_dim())));
    s->ops.push_back(Bytes("gate", 8.0 * static_cast<double>(c_.ffn)));
  }

  Stage HeadStage(const Held& held, int32_t unit) const {
    Stage s;
    s.name = "head";
    s.unit = unit;
    Op op;
    op.name = "head and loss";
    op.kind = KernelKind::kHeadLoss;
    op.tokens = static_cast<int64_t>(o_.supervised * static_cast<double>(o_.tokens));
    op.out = c_.vocab;
    op.in = c_.hidden;
    op.bits = held.bits;
    op.weight_bytes = held.bytes;
    op.gops = (Full() ? 6e-9 : 4e-9) * static_cast<double>(op.tokens) *
              static_cast<double>(c_.vocab) * static_cast<double>(c_.hidden);
    s.ops.push_back(op);
    s.ops.push_back(Bytes("norm", 6.0 * static_cast<double>(c_.hidden)));
    return s;
  }

  // What a forward stage keeps, as LayOut carves it.
  int64_t Kept(int64_t layer) const {
    Carver carver;
    carver.Floats(o_.tokens * c_.hidden);
    if (!o_.recompute) {
      BlockNeeds needs;
      needs.rows = o_.tokens;
      needs.backward = true;
      CarveActivations(carver, c_, layer, needs);
      if (!Full()) carver.Floats(kLinearKinds * o_.tokens * o_.rank);
    }
    return carver.used();
  }

  void Memory(int64_t begin, int64_t end, int64_t train_from, plan::Workload* w) const {
    int64_t trained = 0;
    for (int64_t l = o_.method == WorkloadMethod::kEdge ? 0 : train_from; l < c_.num_layers();
         ++l) {
      for (LinearKind kind : kAllLinears) {
        const LinearShape s = ShapeOf(c_, kind);
        trained += Full() ? s.in * s.out : o_.rank * (s.in + s.out);
      }
    }
    if (Full()) trained = c_.parameter_count();
    // fp32 values (full: they are the weights), gradients, two moments.
    w->state_bytes = trained * 4 * (Full() ? 3 : 4);
    w->optimizer_gbytes = static_cast<double>(trained) * 28e-9;
    BlockNeeds needs;
    needs.rows = o_.tokens;
    needs.backward = true;
    Carver scratch;
    scratch.Floats(2 * o_.tokens * c_.hidden);
    CarveScratch(scratch, c_, needs);
    Carver shared;
    if (o_.recompute || train_from > begin) CarveSharedActivations(shared, c_, needs);
    w->scratch_bytes =
        scratch.high() + shared.high() + kSharedScratch + o_.threads * kScratchPerThread;
    if (o_.method == WorkloadMethod::kEdge) w->scratch_bytes += 2 * o_.tokens * c_.hidden * 4;
    w->runtime_bytes = o_.runtime_bytes;
    static_cast<void>(end);
  }

  const ModelConfig& c_;
  const Model* model_;
  const WorkloadOptions& o_;
};

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
  if (o.tokens < 1 || o.micro_batches < 1 || o.rank < 1) {
    return InvalidArgument("tokens, micro-batches and rank are at least 1");
  }
  const int64_t layers = config.num_layers();
  int64_t begin = 0, train_from = 0;
  if (o.method == WorkloadMethod::kLastN) train_from = std::max<int64_t>(0, layers - o.last_layers);
  if (o.method == WorkloadMethod::kEdge) {
    const int64_t exits = o.exits > 0 ? o.exits : std::min<int64_t>(4, layers);
    if (exits > layers) return InvalidArgument(fmt::format("{} exits of {} layers", exits, layers));
    begin = train_from = (2 * (exits - 1) * layers + exits) / (2 * exits);
  }
  Describer describer(config, model, o);
  plan::Workload w = describer.Describe(begin, layers, train_from);
  constexpr const char* kNames[] = {"lora", "last-n", "full", "edge"};
  w.method = kNames[static_cast<int>(o.method)];
  return w;
}

}  // namespace edgewise::model
