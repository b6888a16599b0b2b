// What generation and scoring ask of a model: the next token's logits, with a cache that can be
// cut.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "infer/vote_policy.h"
#include "model/decoder.h"
#include "model/forked_decoder.h"

namespace edgewise::infer {

class TokenModel {
 public:
  virtual ~TokenModel() = default;

  // Appends tokens; values [vocab] whose softmax is the distribution of the next one, valid until
  // the next call. Errors: as model::Decoder.
  virtual Result<std::span<const float>> Prefill(std::span<const int32_t> tokens) = 0;
  Result<std::span<const float>> Step(int32_t token) { return Prefill({&token, 1}); }
  virtual void Truncate(int64_t length) = 0;
  virtual int64_t length() const = 0;
  virtual int64_t max_context() const = 0;
  // Keys, values and working buffers.
  virtual int64_t resident_bytes() const = 0;
  // Of a run with exits: at which of them the tokens asked for so far have ended; else empty.
  virtual std::span<const int64_t> decided() const { return {}; }
};

// One model with at most one adapter.
class PlainTokenModel : public TokenModel {
 public:
  explicit PlainTokenModel(std::unique_ptr<model::Decoder> decoder)
      : decoder_(std::move(decoder)) {}
  Result<std::span<const float>> Prefill(std::span<const int32_t> tokens) override {
    return decoder_->Prefill(tokens);
  }
  void Truncate(int64_t length) override { decoder_->Truncate(length); }
  int64_t length() const override { return decoder_->length(); }
  int64_t max_context() const override { return decoder_->max_context(); }
  int64_t resident_bytes() const override {
    return decoder_->kv_bytes() + decoder_->scratch_bytes();
  }

 private:
  std::unique_ptr<model::Decoder> decoder_;
};

// The exits of a run and their vote. `voter` must outlive it.
class VotingTokenModel : public TokenModel {
 public:
  VotingTokenModel(std::unique_ptr<model::ForkedDecoder> decoder, Voter& voter)
      : decoder_(std::move(decoder)),
        voter_(voter),
        decided_(static_cast<size_t>(decoder_->exits())) {}
  Result<std::span<const float>> Prefill(std::span<const int32_t> tokens) override;
  void Truncate(int64_t length) override { decoder_->Truncate(length); }
  int64_t length() const override { return decoder_->length(); }
  int64_t max_context() const override { return decoder_->max_context(); }
  int64_t resident_bytes() const override {
    return decoder_->kv_bytes() + decoder_->scratch_bytes();
  }
  std::span<const int64_t> decided() const override { return decided_; }
  const model::ForkedDecoder& decoder() const { return *decoder_; }

 private:
  std::unique_ptr<model::ForkedDecoder> decoder_;
  Voter& voter_;
  std::vector<int64_t> decided_;
};

}  // namespace edgewise::infer
