// A method and data that cost nothing, to test the trainer by itself: the model is a table w[id],
// the loss of a supervised token is (w[id] - target / 16)^2 / 2.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "base/rng.h"
#include "formats/safetensors.h"
#include "formats/safetensors_writer.h"
#include "tune/batch_source.h"
#include "tune/method.h"
#include "tune/optimizer.h"

namespace edgewise::tune::testing {

inline constexpr int kTable = 24;

class FakeMethod : public Method {
 public:
  FakeMethod() : values_(kTable, 0.0f), grads_(kTable, 0.0f) {
    for (int half = 0; half < 2; ++half) {
      model::Parameter p;
      p.name = half == 0 ? "table.low" : "table.high";
      p.shape = {kTable / 4, 2};
      p.count = kTable / 2;
      p.value = values_.data() + half * kTable / 2;
      p.grad = grads_.data() + half * kTable / 2;
      params_.push_back(p);
    }
  }

  const std::vector<model::Parameter>& params() const override { return params_; }
  Status BeginStep(int64_t step, std::vector<int32_t>* active) override {
    *active = {0, 1};
    // Trains one half in every third step, as methods with windows do.
    if (one_half && step % 3 == 2) *active = {1};
    std::fill(grads_.begin(), grads_.end(), 0.0f);
    return Status::Ok();
  }
  Result<LossSum> Micro(const TokenBatch& batch, const MicroContext& c) override {
    if (on_micro) on_micro(c);
    if (fails && fails(c)) return Status(StatusCode::kIo, "the disk failed");
    LossSum sum = Walk(batch, static_cast<float>(c.grad_scale));
    if (bad_loss && bad_loss(c.step)) sum.loss_sum = std::numeric_limits<double>::quiet_NaN();
    if (bad_grad && bad_grad(c.step)) grads_[3] = std::numeric_limits<float>::infinity();
    return sum;
  }
  Result<LossSum> Evaluate(const TokenBatch& batch) override { return Walk(batch, 0); }
  Result<std::vector<ResultFile>> Files() override {
    auto writer = std::make_shared<formats::SafetensorsWriter>();
    EW_RETURN_IF_ERROR(SaveParameters(params_, *writer));
    ResultFile f;
    f.name = "table.safetensors";
    f.bytes = writer->FileBytes();
    f.write = [writer](WritableFile& out) { return writer->WriteTo(out); };
    return std::vector<ResultFile>{f};
  }
  Status Restore(const std::string& directory) override {
    EW_ASSIGN(auto file, formats::SafetensorsFile::Open(directory + "/table.safetensors"));
    return LoadParameters(*file, params_);
  }
  std::string name() const override { return "fake"; }
  std::string OptionsJson() const override { return "{\"flavour\":\"" + flavour + "\"}"; }

  std::vector<float>& values() { return values_; }

  std::function<bool(int64_t step)> bad_loss, bad_grad;
  std::function<void(const MicroContext&)> on_micro;
  std::function<bool(const MicroContext&)> fails;
  bool one_half = false;
  std::string flavour = "plain";

 private:
  LossSum Walk(const TokenBatch& batch, float scale) {
    LossSum sum;
    for (int64_t t = 0; t < batch.size(); ++t) {
      const auto i = static_cast<size_t>(t);
      if (batch.targets[i] < 0) continue;
      const auto id = static_cast<size_t>(batch.ids[i]);
      const float d = values_[id] - static_cast<float>(batch.targets[i]) / 16;
      sum.loss_sum += 0.5 * d * d;
      ++sum.tokens;
      grads_[id] += scale * d;
    }
    return sum;
  }
  std::vector<float> values_, grads_;
  std::vector<model::Parameter> params_;
};

// Random batches of `tokens` tokens, about three quarters of them supervised.
class FakeSource : public BatchSource {
 public:
  FakeSource(uint64_t seed, int64_t batches, int64_t tokens)
      : seed_(seed), batches_(batches), tokens_(tokens) {}
  int64_t batches_per_epoch() const override { return batches_; }
  int64_t max_tokens() const override { return tokens_; }
  Result<TokenBatch> Get(int64_t epoch, int64_t index) override {
    Rng rng(seed_, RngStream::kTest, static_cast<uint64_t>(epoch * 1000 + index));
    TokenBatch b;
    for (int64_t t = 0; t < tokens_; ++t) {
      const auto id = static_cast<int32_t>(rng.NextBelow(kTable));
      b.ids.push_back(id);
      const int64_t first = document_tokens > 0 ? t / document_tokens * document_tokens : 0;
      b.positions.push_back(static_cast<int32_t>(t - first));
      b.first_key.push_back(static_cast<int32_t>(first));
      b.targets.push_back(rng.NextBelow(4) == 0 ? TokenBatch::kNoTarget : (id * 7) % 16);
    }
    return b;
  }
  std::string fingerprint() const override { return "fake-" + std::to_string(seed_); }

  int64_t document_tokens = 0;  // 0: a batch is one document

 private:
  uint64_t seed_;
  int64_t batches_, tokens_;
};

}  // namespace edgewise::tune::testing
