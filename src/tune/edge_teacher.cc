// Learning from another model's distribution of the next token.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tune/edge_method.h"

namespace edgewise::tune {

Status EdgeMethod::MakeTeacher(ExecContext& ctx, int64_t max_tokens) {
  const double weight = options_.teacher_weight;
  if (!(weight >= 0 && weight <= 1)) {
    return InvalidArgument(
        fmt::format("the teacher's share {} of the loss is not in [0, 1]", weight));
  }
  if (options_.teacher == nullptr || weight == 0) return Status::Ok();
  const model::ModelConfig& theirs = options_.teacher->config();
  if (theirs.vocab != model_.config().vocab) {
    return BadInput(fmt::format(
        "the teacher has a vocabulary of {}, the model one of {}: they have to share a tokenizer",
        theirs.vocab, model_.config().vocab));
  }
  teacher_pass_ = std::make_unique<model::TrainingPass>(ctx, *options_.teacher, max_tokens);
  SetTeacherTokens(max_tokens);
  teacher_.weight = weight;
  teacher_.logits = [this](std::span<const int64_t> tokens, float* logits) {
    const int64_t width = options_.teacher->config().hidden;
    float* row = teacher_rows_.data();
    for (int64_t t : tokens) row = std::copy_n(teacher_state_.data() + t * width, width, row);
    return teacher_pass_->Logits(static_cast<int64_t>(tokens.size()), teacher_rows_.data(), logits);
  };
  return Status::Ok();
}

void EdgeMethod::SetTeacherTokens(int64_t max_tokens) {
  if (teacher_pass_ == nullptr) return;
  const int64_t values = max_tokens * options_.teacher->config().hidden;
  teacher_pass_->SetMaxTokens(max_tokens);
  for (FloatBuffer* rows : {&teacher_state_, &teacher_rows_}) {
    *rows = FloatBuffer();
    *rows = FloatBuffer(values);
  }
}

// Its states at the top; their logits are asked for a few rows at a time.
Status EdgeMethod::RunTeacher(const TokenBatch& batch) {
  EW_RETURN_IF_ERROR(teacher_pass_->Embed(batch, teacher_state_.data()));
  return teacher_pass_->Forward(batch, {0, options_.teacher->config().num_layers()}, nullptr,
                                teacher_state_.data());
}

int64_t EdgeMethod::TeacherScratch(int64_t max_tokens) const {
  if (teacher_pass_ == nullptr) return 0;
  model::PassOptions whole;
  whole.end = options_.teacher->config().num_layers();
  whole.start_hidden = teacher_state_.data();
  const int64_t rows = 2 * max_tokens * options_.teacher->config().hidden;
  return teacher_pass_->MemoryNeeded(whole, max_tokens).scratch +
         rows * static_cast<int64_t>(sizeof(float));
}

}  // namespace edgewise::tune
