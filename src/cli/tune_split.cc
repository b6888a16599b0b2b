// How a run cuts its micro-batches to fit its limit.
#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "cli/tune_fit.h"
#include "exec/memory.h"
#include "model/weight_stream.h"

namespace edgewise::cli {
namespace {

// Of the units that are used when the states below the windows are all cached.
int64_t UsedWeights(const model::WeightStream& stream, const std::vector<tune::Exit>& exits) {
  std::vector<bool> used(static_cast<size_t>(stream.units()), false);
  for (int64_t b = 0; b < stream.head_blocks(); ++b) {
    used[static_cast<size_t>(stream.head_unit(b))] = true;
  }
  for (const tune::Exit& e : exits) {
    if (e.begin == 0 && !stream.CanGather())
      used[static_cast<size_t>(stream.embedding_unit())] = true;
    for (int64_t l = e.begin; l < e.end; ++l)
      used[static_cast<size_t>(stream.layer_unit(l))] = true;
  }
  int64_t bytes = 0;
  for (int64_t u = 0; u < stream.units(); ++u) {
    if (used[static_cast<size_t>(u)]) bytes += stream.unit_bytes(u);
  }
  return bytes;
}

}  // namespace

Status TuneFit::BeginSplit(int64_t recorded) {
  for (const tune::DatasetSource* source : {data_.train.get(), data_.valid.get()}) {
    if (source == nullptr) continue;
    for (const data::Example& e : source->dataset().examples()) {
      longest_ = std::max(longest_, static_cast<int64_t>(e.ids.size()));
    }
  }
  EW_ASSIGN(const int64_t asked, ParseSplit(flags_.split));
  // (Where nothing is larger nothing is cut.)
  int64_t split = asked < data_.max_tokens ? std::max<int64_t>(asked, 0) : 0;
  recorded_ = recorded >= 0;
  if (recorded_ && asked >= 0 && split != recorded) {
    return InvalidArgument(fmt::format(
        "--split {}: the run that goes on {}, which has to stay: leave the option out, or start "
        "another run",
        flags_.split,
        recorded > 0 ? fmt::format("cuts its micro-batches to {} tokens", recorded)
                     : "does not cut its micro-batches so"));
  }
  may_cut_ = asked < 0 && !recorded_;
  cut_to_save_ = may_cut_ && asked == kSplitFast;
  SetSplit(recorded_ ? recorded : split);
  return Status::Ok();
}

int64_t TuneFit::TokensOf(int64_t split_tokens) const {
  if (split_tokens <= 0) return data_.max_tokens;
  return std::min(data_.max_tokens, std::max(split_tokens, longest_));
}

std::vector<int64_t> TuneFit::SmallerCuts() const {
  std::vector<int64_t> out;
  for (int64_t tokens = request_.max_tokens; tokens > longest_;) {
    out.push_back(tokens = std::max(tokens / 2, longest_));
  }
  return out;
}

void TuneFit::SetSplit(int64_t tokens) {
  plan_.split_tokens = tokens;
  request_.max_tokens = TokensOf(tokens);
}

Status TuneFit::FitCut() {
  Status status = Fit();
  if (may_cut_) {
    for (const int64_t tokens : SmallerCuts()) {
      if (status.code() != StatusCode::kOutOfMemory) break;
      SetSplit(tokens);
      status = Fit();
    }
  }
  return Explain(std::move(status));
}

Status TuneFit::Explain(Status refusal) const {
  if (refusal.code() != StatusCode::kOutOfMemory) return refusal;
  if (data_limit_) {
    refusal = refusal.WithContext(
        fmt::format("RLIMIT_DATA (ulimit -d) leaves {} for the run, which --memory cannot raise",
                    FormatBytes(plan_.memory_limit)));
  }
  const int64_t tokens = plan_.split_tokens;
  if (recorded_) {
    return refusal.WithContext(
        tokens > 0 ? fmt::format("the run that goes on cuts its micro-batches to {} tokens, which "
                                 "has to stay",
                                 tokens)
                   : "the run that goes on does not cut its micro-batches, which has to stay");
  }
  if (tokens > 0) {
    return refusal.WithContext(fmt::format(
        "with micro-batches cut to {} tokens{}", tokens,
        request_.max_tokens == longest_ ? fmt::format(" (the longest document has {})", longest_)
                                        : ""));
  }
  return may_cut_ || request_.max_tokens <= longest_
             ? refusal
             : Status(refusal.code(), refusal.message() + "; --split auto cuts micro-batches");
}

Status TuneFit::ObeySplit(tune::EdgeMethod* edge, bool settled) {
  if (edge == nullptr) return Status::Ok();
  EW_RETURN_IF_ERROR(edge->SetMaxTokens(request_.max_tokens, plan_.split_tokens));
  if (settled) EW_RETURN_IF_ERROR(edge->Settle());
  const bool before = complete_;
  complete_ = edge->trunk().Complete();
  const bool used = complete_ && model_.stream() != nullptr;
  request_.used_weights = used ? UsedWeights(*model_.stream(), edge->exits()) : 0;
  // States that are there need no time.
  if (complete_ && !before) prediction_.seconds -= prediction_.trunk_seconds;
  if (complete_) prediction_.trunk_seconds = 0;
  return Status::Ok();
}

Status TuneFit::Predict(tune::EdgeMethod* edge) {
  const tune::MemoryRequest asked = request_;
  Status status = PredictOnce(edge);
  // What measuring leaves in memory may be too much for the size that was fitted before.
  while (may_cut_ && status.code() == StatusCode::kOutOfMemory &&
         ReadProcessMemory().peak_rss_bytes <= plan_.memory_limit) {
    const std::vector<int64_t> smaller = SmallerCuts();
    if (smaller.empty()) break;
    request_.method = asked.method;
    request_.group = asked.group;
    SetSplit(smaller.front());
    status = FitCut();
    if (!status.ok()) return status;
    EW_RETURN_IF_ERROR(ObeySplit(edge, /*settled=*/false));
    status = PredictOnce(edge);
  }
  return Explain(std::move(status));
}

}  // namespace edgewise::cli
