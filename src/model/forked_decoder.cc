#include "model/forked_decoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <numeric>
#include <set>

#include "kernels/elementwise.h"
#include "kernels/linear.h"
#include "model/block.h"
#include "model/held_weights.h"
#include "model/pass_layout.h"
#include "model/rope.h"

namespace edgewise::model {

constexpr int kTrunk = -1;  // the stream of the base itself

struct ForkedDecoder::Segment {
  LayerRange layers;
  std::vector<int> streams;  // kTrunk or an index into ExitSet::streams()
  std::vector<KvCache> caches;
  // States that wait at the segment's begin: per stream [chunk, hidden], `waiting` rows each, of
  // the positions from the caches' length on.
  std::vector<FloatBuffer> states;
  int64_t waiting = 0;
  std::vector<int> taps;  // exits that look at the segment's end

  int64_t done() const { return caches.front().length(); }
  int IndexOf(int stream) const {
    const auto at = std::find(streams.begin(), streams.end(), stream);
    return at == streams.end() ? -1 : static_cast<int>(at - streams.begin());
  }
};

struct ForkedDecoder::Buffers {
  RopeTables rope;
  AlignedBuffer storage;
  BlockActivations acts;
  BlockScratch scratch;
  std::vector<float*> cache_scratch;  // per stream of the widest segment
  std::vector<int32_t> positions, first_key;
  FloatBuffer hidden;    // [streams, chunk, hidden]
  FloatBuffer taps;      // [exits, hidden], the last token's state below each exit
  FloatBuffer normed;    // [exits, hidden]
  FloatBuffer xa;        // [head rank]
  FloatBuffer logits;    // [exits, vocab]
  bool one_head = true;  // every exit uses the model's own head
};

ForkedDecoder::ForkedDecoder(ExecContext& ctx, const Model& model, const ExitSet& exits)
    : ctx_(ctx), model_(model), exits_(exits) {}
ForkedDecoder::~ForkedDecoder() = default;

Result<std::unique_ptr<ForkedDecoder>> ForkedDecoder::Create(ExecContext& ctx, const Model& model,
                                                             const ExitSet& exits,
                                                             const DecoderOptions& options) {
  std::unique_ptr<ForkedDecoder> decoder(new ForkedDecoder(ctx, model, exits));
  try {
    EW_RETURN_IF_ERROR(decoder->Plan(options));
  } catch (const std::bad_alloc&) {
    return OutOfMemory("there is no memory for the decoder's buffers: ask for a shorter context");
  }
  return decoder;
}

Status ForkedDecoder::Plan(const DecoderOptions& options) {
  const ModelConfig& c = model_.config();
  max_context_ = options.max_context > 0 ? options.max_context : c.max_positions;
  chunk_ = std::clamp<int64_t>(options.prefill_chunk, 1, max_context_);
  // Exits in the order in which they are reached: what Prefill counts by.
  for (int k = 1; k < exits_.size(); ++k) {
    if (exits_.exit(k).end < exits_.exit(k - 1).end) {
      return InvalidArgument("the exits of a run have to be ordered from below");
    }
  }
  std::set<int64_t> cuts = {0};
  for (const ExitStream& s : exits_.streams()) cuts.insert({s.layers.begin, s.layers.end});
  for (int k = 0; k < exits_.size(); ++k) cuts.insert(exits_.exit(k).end);
  size_t widest = 1;
  for (auto cut = cuts.begin(); std::next(cut) != cuts.end(); ++cut) {
    Segment s;
    s.layers = {*cut, *std::next(cut)};
    if (s.layers.begin < exits_.trunk_end()) s.streams.push_back(kTrunk);
    for (size_t i = 0; i < exits_.streams().size(); ++i) {
      const LayerRange r = exits_.streams()[i].layers;
      if (r.begin <= s.layers.begin && s.layers.end <= r.end) {
        s.streams.push_back(static_cast<int>(i));
      }
    }
    for (int k = 0; k < exits_.size(); ++k) {
      if (exits_.exit(k).end == s.layers.end) s.taps.push_back(k);
    }
    for (size_t i = 0; i < s.streams.size(); ++i) {
      EW_ASSIGN(KvCache cache, KvCache::Create(c, s.layers, max_context_, options.kv_form));
      s.caches.push_back(std::move(cache));
      s.states.emplace_back(chunk_ * c.hidden);
    }
    widest = std::max(widest, s.streams.size());
    segments_.push_back(std::move(s));
  }
  buffers_ = std::make_unique<Buffers>();
  Buffers& b = *buffers_;
  const auto rows = static_cast<int64_t>(widest) * chunk_;
  const LoraAdapter* widest_adapter = nullptr;
  int64_t head_rank = 0;
  for (const ExitStream& s : exits_.streams()) {
    if (s.lora == nullptr) continue;
    if (widest_adapter == nullptr || s.lora->max_rank() > widest_adapter->max_rank()) {
      widest_adapter = s.lora;
    }
  }
  for (int k = 0; k < exits_.size(); ++k) {
    head_rank = std::max(head_rank, exits_.exit(k).head_lora_rank);
    b.one_head = b.one_head && exits_.exit(k).head.empty();
  }
  const auto carve = [&](Carver& carver) {
    BlockNeeds needs;
    needs.rows = needs.mlp_rows = rows;
    needs.own_x_mid = false;
    needs.lora = widest_adapter;
    needs.rounds = exits_.activation_bits() > 0;
    b.acts = CarveSharedActivations(carver, c, needs);
    b.scratch.normed = carver.Floats(rows * c.hidden);
    b.scratch.ffn = b.acts.gate;
    if (needs.rounds) b.scratch.adapter.rounded = carver.Floats(rows * WidestInput(c));
    b.cache_scratch.assign(widest, nullptr);
    if (options.kv_form == KvForm::kF32) return;
    for (float*& s : b.cache_scratch) s = carver.Floats(2 * max_context_ * c.kv_dim());
  };
  Carver plan;
  carve(plan);
  b.storage = AlignedBuffer(static_cast<size_t>(plan.used()));
  Carver carver(b.storage.data());
  carve(carver);
  b.rope.Ensure(c, max_context_);
  b.positions.resize(static_cast<size_t>(rows));
  b.first_key.resize(static_cast<size_t>(rows));
  b.hidden = FloatBuffer(rows * c.hidden);
  b.taps = FloatBuffer(exits_.size() * c.hidden);
  b.normed = FloatBuffer(exits_.size() * c.hidden);
  b.xa = FloatBuffer(std::max<int64_t>(head_rank, 1));
  b.logits = FloatBuffer(exits_.size() * c.vocab);
  return Status::Ok();
}

int64_t ForkedDecoder::kv_bytes() const {
  int64_t bytes = 0;
  for (const Segment& s : segments_) {
    for (const KvCache& cache : s.caches) bytes += cache.bytes();
  }
  return bytes;
}

int64_t ForkedDecoder::scratch_bytes() const {
  const Buffers& b = *buffers_;
  int64_t floats =
      b.hidden.size() + b.taps.size() + b.normed.size() + b.xa.size() + b.logits.size();
  for (const Segment& s : segments_) {
    for (const FloatBuffer& state : s.states) floats += state.size();
  }
  return static_cast<int64_t>(b.storage.size()) + b.rope.bytes() + floats * 4;
}

void ForkedDecoder::Truncate(int64_t length) {
  length_ = std::clamp<int64_t>(length, 0, length_);
  for (Segment& s : segments_) {
    for (KvCache& cache : s.caches) cache.Truncate(length_);
    s.waiting = std::clamp<int64_t>(length_ - s.done(), 0, s.waiting);
  }
}

// The rows that wait at the segment's begin go through its layers, in buffers_->hidden.
Status ForkedDecoder::RunSegment(Segment& s) {
  const ModelConfig& c = model_.config();
  Buffers& b = *buffers_;
  const int64_t n = s.waiting, at = s.done();
  const auto streams = static_cast<int64_t>(s.streams.size());
  std::vector<BlockStream> rows(s.streams.size());
  for (int64_t i = 0; i < streams; ++i) {
    const auto k = static_cast<size_t>(i);
    rows[k].rows = n;
    if (s.streams[k] != kTrunk) {
      rows[k].lora = exits_.streams()[static_cast<size_t>(s.streams[k])].lora;
    }
    rows[k].cache = {&s.caches[k], 0, b.cache_scratch[k]};
    std::copy_n(s.states[k].data(), n * c.hidden, b.hidden.data() + i * n * c.hidden);
    for (int64_t t = 0; t < n; ++t) {
      b.positions[static_cast<size_t>(i * n + t)] = static_cast<int32_t>(at + t);
    }
  }
  BlockActivations acts = b.acts;
  acts.x_mid = b.hidden.data();
  for (int64_t layer = s.layers.begin; layer < s.layers.end; ++layer) {
    const LayerConfig& description = c.layers[static_cast<size_t>(layer)];
    // Only the part of the cache that the first row's window reaches is looked at.
    const int64_t window = description.window;
    const int64_t from = window > 0 ? std::max<int64_t>(0, at - window + 1) : 0;
    for (int64_t i = 0; i < streams; ++i) {
      rows[static_cast<size_t>(i)].cache.from = from;
      for (int64_t t = 0; t < n; ++t) {
        const int64_t first = window > 0 ? std::max<int64_t>(0, at + t - window + 1) : 0;
        b.first_key[static_cast<size_t>(i * n + t)] = static_cast<int32_t>(first - from);
      }
    }
    Block block{c, layer, model_.weights().layers[static_cast<size_t>(layer)],
                b.rope[description.rope]};
    block.activation_bits = exits_.activation_bits();
    EW_ASSIGN(const HeldWeights held, HeldWeights::Layer(model_, layer));
    BlockForward(ctx_, block, {streams * n, b.positions.data(), b.first_key.data(), rows},
                 b.hidden.data(), b.hidden.data(), acts, b.scratch);
  }
  for (KvCache& cache : s.caches) cache.Advance(n);
  layer_rows_ += s.layers.size() * streams * n;
  s.waiting = 0;
  return Status::Ok();
}

void ForkedDecoder::PassOn(size_t index, int64_t n) {
  if (index + 1 == segments_.size()) return;
  const int64_t width = model_.config().hidden;
  const Segment& from = segments_[index];
  Segment& to = segments_[index + 1];
  for (size_t i = 0; i < to.streams.size(); ++i) {
    // A stream that begins here starts from the base's state.
    int source = from.IndexOf(to.streams[i]);
    if (source < 0) source = from.IndexOf(kTrunk);
    std::copy_n(buffers_->hidden.data() + source * n * width, n * width,
                to.states[i].data() + to.waiting * width);
  }
  to.waiting += n;
}

void ForkedDecoder::KeepTapRows(const Segment& s, int64_t n) {
  const int64_t width = model_.config().hidden;
  for (int k : s.taps) {
    const int source = s.IndexOf(exits_.exit(k).stream);
    std::copy_n(buffers_->hidden.data() + (source * n + n - 1) * width, width,
                buffers_->taps.data() + k * width);
  }
}

// Logits of the exits [first, first + count): one product when they share the model's head.
Status ForkedDecoder::Logits(int first, int count) {
  const ModelConfig& c = model_.config();
  Buffers& b = *buffers_;
  for (int k = first; k < first + count; ++k) {
    const ExitHead head = exits_.exit(k).Head();
    kernels::RmsNormForward(ctx_, 1, c.hidden, static_cast<float>(c.norm_eps), c.norm_plus_one,
                            b.taps.data() + k * c.hidden,
                            head.norm != nullptr ? head.norm : model_.weights().final_norm,
                            b.normed.data() + k * c.hidden, nullptr);
    if (b.one_head) continue;
    const float* x = b.normed.data() + k * c.hidden;
    float* out = b.logits.data() + k * c.vocab;
    if (head.head != nullptr) {
      kernels::LinearForward(ctx_, 1, x, c.hidden, *head.head, nullptr, out, c.vocab);
    } else {
      EW_RETURN_IF_ERROR(HeadForward(ctx_, model_, 1, x, out));
    }
  }
  float* logits = b.logits.data() + first * c.vocab;
  if (b.one_head) {
    EW_RETURN_IF_ERROR(
        HeadForward(ctx_, model_, count, b.normed.data() + first * c.hidden, logits));
  }
  for (int k = first; k < first + count; ++k) {
    const ExitHead head = exits_.exit(k).Head();
    if (head.lora_r == 0) continue;
    kernels::LoraForward(ctx_, 1, c.hidden, c.vocab, head.lora_r, head.lora_scale,
                         b.normed.data() + k * c.hidden, c.hidden, head.lora_a, head.lora_b,
                         b.xa.data(), b.logits.data() + k * c.vocab, c.vocab);
  }
  if (c.logit_softcap <= 0) return Status::Ok();
  const float cap = c.logit_softcap;
  ctx_.ParallelFor(count * c.vocab, 1 << 14, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) logits[i] = cap * std::tanh(logits[i] / cap);
  });
  return Status::Ok();
}

Result<std::span<const float>> ForkedDecoder::Prefill(std::span<const int32_t> tokens,
                                                      const StopFn& stop) {
  const ModelConfig& c = model_.config();
  const auto count = static_cast<int64_t>(tokens.size());
  if (count == 0) return InvalidArgument("there are no tokens to read");
  for (int32_t id : tokens) {
    if (id < 0 || id >= c.vocab) {
      return BadInput(
          fmt::format("token id {} is not in the model's vocabulary of {}", id, c.vocab));
    }
  }
  if (length_ + count > max_context_) {
    return InvalidArgument(fmt::format("{} tokens do not fit: {} of the context's {} are taken",
                                       count, length_, max_context_));
  }
  int reached = 0;
  for (int64_t at = 0; at < count;) {
    const int64_t rows = std::min(chunk_, count - at);
    const bool last = at + rows == count;
    Segment& bottom = segments_.front();
    EW_RETURN_IF_ERROR(EmbedTokens(
        ctx_, model_, tokens.subspan(static_cast<size_t>(at), static_cast<size_t>(rows)),
        bottom.states[0].data()));
    for (size_t i = 1; i < bottom.states.size(); ++i) {
      std::copy_n(bottom.states[0].data(), rows * c.hidden, bottom.states[i].data());
    }
    bottom.waiting = rows;
    length_ += rows;
    for (size_t i = 0; i < segments_.size(); ++i) {
      Segment& s = segments_[i];
      const int64_t n = s.waiting;
      // The segment above holds at most a chunk: what waits there goes first.
      if (i + 1 < segments_.size() && segments_[i + 1].waiting + n > chunk_) {
        EW_RETURN_IF_ERROR(Flush(i + 1));
      }
      EW_RETURN_IF_ERROR(RunSegment(s));
      PassOn(i, n);
      if (!last || s.taps.empty()) continue;
      KeepTapRows(s, n);
      const int first = s.taps.front(), taps = static_cast<int>(s.taps.size());
      reached = first + taps;
      if (!stop || i + 1 == segments_.size()) continue;
      EW_RETURN_IF_ERROR(Logits(first, taps));
      const auto vocab = static_cast<size_t>(c.vocab);
      bool ends = false;
      for (int k : s.taps) {
        ends =
            ends || stop(k, buffers_->logits.span().subspan(static_cast<size_t>(k) * vocab, vocab));
      }
      if (ends) break;
    }
    at += rows;
  }
  if (!stop) {
    EW_RETURN_IF_ERROR(Logits(0, reached));
  } else if (reached == exits_.size()) {
    const auto taps = static_cast<int>(segments_.back().taps.size());
    EW_RETURN_IF_ERROR(Logits(reached - taps, taps));
  }
  const std::span<const float> logits = buffers_->logits.span();
  return logits.first(static_cast<size_t>(reached * c.vocab));
}

// What waits at segment `index` and above goes through to the end.
Status ForkedDecoder::Flush(size_t index) {
  for (size_t i = index; i < segments_.size(); ++i) {
    const int64_t n = segments_[i].waiting;
    if (n == 0) continue;
    if (i + 1 < segments_.size() && segments_[i + 1].waiting + n > chunk_) {
      EW_RETURN_IF_ERROR(Flush(i + 1));
    }
    EW_RETURN_IF_ERROR(RunSegment(segments_[i]));
    PassOn(i, n);
  }
  return Status::Ok();
}

}  // namespace edgewise::model
