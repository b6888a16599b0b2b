#include "data/packing.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "base/checked.h"
#include "base/rng.h"

namespace edgewise::data {

namespace {

int64_t LengthOf(const Example& example) { return static_cast<int64_t>(example.ids.size()); }

std::vector<std::vector<int64_t>> PackInOrder(std::span<const Example> examples, int64_t max) {
  std::vector<std::vector<int64_t>> rows;
  int64_t room = 0;
  for (size_t i = 0; i < examples.size(); ++i) {
    const int64_t length = LengthOf(examples[i]);
    if (length > room) {
      rows.emplace_back();
      room = max;
    }
    rows.back().push_back(static_cast<int64_t>(i));
    room -= length;
  }
  return rows;
}

std::vector<std::vector<int64_t>> PackBestFit(std::span<const Example> examples, int64_t max) {
  std::vector<int64_t> order(examples.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return LengthOf(examples[static_cast<size_t>(a)]) > LengthOf(examples[static_cast<size_t>(b)]);
  });
  std::vector<std::vector<int64_t>> rows;
  std::multimap<int64_t, size_t> room;  // free tokens -> row; equal keys in order of insertion
  for (const int64_t i : order) {
    const int64_t length = LengthOf(examples[static_cast<size_t>(i)]);
    const auto fit = room.lower_bound(length);
    size_t row = rows.size();
    int64_t left = max - length;
    if (fit == room.end()) {
      rows.emplace_back();
    } else {
      row = fit->second;
      left = fit->first - length;
      room.erase(fit);
    }
    rows[row].push_back(i);
    if (left > 0) room.emplace(left, row);
  }
  return rows;
}

}  // namespace

Result<std::vector<std::vector<int64_t>>> PackExamples(std::span<const Example> examples,
                                                       Packing packing, int64_t max_tokens) {
  for (size_t i = 0; i < examples.size(); ++i) {
    if (LengthOf(examples[i]) > max_tokens) {
      return InvalidArgument(fmt::format("example {} has {} tokens, a row holds {}", i,
                                         LengthOf(examples[i]), max_tokens));
    }
  }
  switch (packing) {
    case Packing::kInOrder:
      return PackInOrder(examples, max_tokens);
    case Packing::kBestFit:
      return PackBestFit(examples, max_tokens);
    case Packing::kNone:
      break;
  }
  std::vector<std::vector<int64_t>> rows;
  for (size_t i = 0; i < examples.size(); ++i) rows.push_back({static_cast<int64_t>(i)});
  return rows;
}

BatchPlan::BatchPlan(int64_t rows, const BatchPlanOptions& options)
    : rows_(rows),
      options_(options),
      micro_batches_(CeilDiv(rows, options.batch_size)),
      steps_(CeilDiv(micro_batches_, options.grad_accum)) {}

int64_t BatchPlan::micro_batches_of_step(int64_t step) const {
  return std::min(options_.grad_accum, micro_batches_ - step * options_.grad_accum);
}

std::vector<int64_t> BatchPlan::Rows(int64_t epoch, int64_t index) {
  if (epoch != epoch_) {
    if (options_.shuffle) {
      order_ = RandomPermutation(
          rows_, Rng(options_.seed, RngStream::kDataOrder, static_cast<uint64_t>(epoch)));
    } else {
      order_.resize(static_cast<size_t>(rows_));
      std::iota(order_.begin(), order_.end(), int64_t{0});
    }
    epoch_ = epoch;
  }
  const int64_t begin = std::clamp<int64_t>(index * options_.batch_size, 0, rows_);
  const int64_t end = std::clamp<int64_t>(begin + options_.batch_size, begin, rows_);
  return {order_.begin() + begin, order_.begin() + end};
}

TokenBatch MakeBatch(std::span<const Example> examples, std::span<const int64_t> documents) {
  TokenBatch batch;
  size_t total = 0;
  for (const int64_t d : documents) total += examples[static_cast<size_t>(d)].ids.size();
  for (std::vector<int32_t>* v : {&batch.ids, &batch.positions, &batch.first_key, &batch.targets}) {
    v->reserve(total);
  }
  for (const int64_t d : documents) {
    const Example& example = examples[static_cast<size_t>(d)];
    const auto start = static_cast<int32_t>(batch.ids.size());
    const size_t n = example.ids.size();
    batch.ids.insert(batch.ids.end(), example.ids.begin(), example.ids.end());
    batch.targets.insert(batch.targets.end(), example.targets.begin(), example.targets.end());
    batch.first_key.insert(batch.first_key.end(), n, start);
    for (size_t t = 0; t < n; ++t) batch.positions.push_back(static_cast<int32_t>(t));
  }
  return batch;
}

BatchedDataset::BatchedDataset(std::vector<Example> examples,
                               std::vector<std::vector<int64_t>> rows,
                               const BatchPlanOptions& options)
    : examples_(std::move(examples)),
      rows_(std::move(rows)),
      plan_(static_cast<int64_t>(rows_.size()), options) {
  // The largest micro-batch that any order could bring together.
  std::vector<int64_t> lengths;
  for (const auto& row : rows_) {
    int64_t length = 0;
    for (const int64_t i : row) length += LengthOf(examples_[static_cast<size_t>(i)]);
    lengths.push_back(length);
  }
  std::sort(lengths.rbegin(), lengths.rend());
  const size_t n = std::min(lengths.size(), static_cast<size_t>(options.batch_size));
  max_batch_tokens_ = std::accumulate(lengths.begin(),
                                      lengths.begin() + static_cast<std::ptrdiff_t>(n), int64_t{0});
}

Result<BatchedDataset> BatchedDataset::Create(std::vector<Example> examples, Packing packing,
                                              int64_t max_tokens, const BatchPlanOptions& options) {
  if (examples.empty()) return InvalidArgument("no examples to make batches of");
  if (options.batch_size < 1 || options.grad_accum < 1) {
    return InvalidArgument("batch size and gradient accumulation must be at least 1");
  }
  EW_ASSIGN(auto rows, PackExamples(examples, packing, max_tokens));
  return BatchedDataset(std::move(examples), std::move(rows), options);
}

std::vector<int64_t> BatchedDataset::Documents(int64_t epoch, int64_t index) {
  std::vector<int64_t> documents;
  for (const int64_t row : plan_.Rows(epoch, index)) {
    const auto& members = rows_[static_cast<size_t>(row)];
    documents.insert(documents.end(), members.begin(), members.end());
  }
  return documents;
}

TokenBatch BatchedDataset::Batch(int64_t epoch, int64_t index) {
  return MakeBatch(examples_, Documents(epoch, index));
}

}  // namespace edgewise::data
