#include "data/dataset.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "base/rng.h"
#include "tensor/token_batch.h"

namespace edgewise::data {

namespace {

uint64_t HashOf(const std::vector<int32_t>& v, uint64_t seed) {
  return XXH3_64bits_withSeed(v.data(), v.size() * sizeof(int32_t), seed);
}

}  // namespace

Example MakeExample(const std::vector<int32_t>& ids, const std::vector<uint8_t>& mask) {
  Example example;
  example.ids = ids;
  example.targets.assign(ids.size(), TokenBatch::kNoTarget);
  for (size_t t = 0; t + 1 < ids.size(); ++t) {
    if (mask[t + 1] != 0) example.targets[t] = ids[t + 1];
  }
  example.key = HashOf(ids, 0);
  return example;
}

int64_t CountTargets(const Example& example) {
  return std::count_if(example.targets.begin(), example.targets.end(),
                       [](int32_t t) { return t != TokenBatch::kNoTarget; });
}

std::string Describe(const DatasetReport& r) {
  std::string text = fmt::format(
      "{} rows -> {} examples, {} tokens, {} learned ({:.0f}%), longest row {} tokens\n",
      r.read.rows, r.examples, r.tokens, r.learned_tokens,
      r.tokens > 0 ? 100.0 * static_cast<double>(r.learned_tokens) / static_cast<double>(r.tokens)
                   : 0.0,
      r.longest);
  const auto warn = [&](int64_t count, std::string_view what) {
    if (count > 0) text += fmt::format("warning: {} {}\n", count, what);
  };
  warn(r.truncated,
       fmt::format("rows were cut to the maximum length, {} tokens lost", r.truncated_tokens));
  if (r.split > 0) text += fmt::format("{} texts were cut into several examples\n", r.split);
  warn(r.unsupervised, "rows were left out: nothing in them is learned within the maximum length");
  warn(r.straddling, "rows have a token across the end of a prompt; it is not learned");
  warn(r.read.bad, "bad rows were skipped, the first ones:");
  for (const std::string& message : r.read.first_bad) text += fmt::format("  {}\n", message);
  return text;
}

std::string Dataset::fingerprint() const {
  uint64_t hash = 0;
  for (const Example& example : examples) hash = HashOf(example.targets, hash ^ example.key);
  return fmt::format("{:016x}-{}", hash, examples.size());
}

Result<Dataset> LoadDataset(const std::string& path, const Masker& masker,
                            const DatasetOptions& options) {
  if (options.max_length < 2) {
    return InvalidArgument("the maximum length must be at least 2 tokens");
  }
  const auto max = static_cast<size_t>(options.max_length);
  Dataset dataset;
  DatasetReport& report = dataset.report;
  const auto keep = [&](const std::vector<int32_t>& ids, const std::vector<uint8_t>& mask) {
    Example example = MakeExample(ids, mask);
    const int64_t targets = CountTargets(example);
    if (targets == 0) return false;
    ++report.examples;
    report.tokens += static_cast<int64_t>(ids.size());
    report.learned_tokens += targets;
    dataset.examples.push_back(std::move(example));
    return true;
  };
  const auto take = [&](const Sample& sample) -> Status {
    EW_ASSIGN(MaskedSample masked, masker.Mask(sample));
    const size_t n = masked.ids.size();
    report.longest = std::max(report.longest, static_cast<int64_t>(n));
    report.straddling += masked.straddling_token ? 1 : 0;
    if (sample.format == Format::kText && n > max) {
      ++report.split;
      bool any = false;
      for (size_t begin = 0; begin + 1 < n; begin += max - 1) {
        const size_t end = std::min(n, begin + max);
        const auto b = static_cast<std::ptrdiff_t>(begin), e = static_cast<std::ptrdiff_t>(end);
        any = keep({masked.ids.begin() + b, masked.ids.begin() + e},
                   {masked.mask.begin() + b, masked.mask.begin() + e}) ||
              any;
      }
      report.unsupervised += any ? 0 : 1;
      return Status::Ok();
    }
    if (n > max) {
      ++report.truncated;
      report.truncated_tokens += static_cast<int64_t>(n - max);
      masked.ids.resize(max);
      masked.mask.resize(max);
    }
    report.unsupervised += keep(masked.ids, masked.mask) ? 0 : 1;
    return Status::Ok();
  };
  EW_ASSIGN(report.read, ReadSamples(path, options.read, take, options.split));
  if (dataset.examples.empty()) {
    return BadInput(fmt::format(
        "{}: no token of any row is learned ({} rows, {} cut to {} tokens); raise the maximum "
        "length or learn all tokens (--train-on-prompt)",
        path, report.read.rows, report.truncated, options.max_length));
  }
  return dataset;
}

Result<SplitDataset> SplitForValidation(std::vector<Example> examples, double fraction,
                                        uint64_t seed) {
  if (!(fraction > 0) || !(fraction < 1)) {
    return InvalidArgument(
        fmt::format("the validation fraction must be between 0 and 1, not {}", fraction));
  }
  const auto n = static_cast<int64_t>(examples.size());
  if (n < 2) return BadInput("too few examples to set some apart for validation");
  const auto wanted = static_cast<int64_t>(fraction * static_cast<double>(n) + 0.5);
  const int64_t count = std::clamp<int64_t>(wanted, 1, n - 1);
  // A stream of its own: the order of the epochs uses the others.
  constexpr uint64_t kSplitSubstream = ~uint64_t{0};
  const std::vector<int64_t> order =
      RandomPermutation(n, Rng(seed, RngStream::kDataOrder, kSplitSubstream));
  std::vector<bool> chosen(examples.size(), false);
  for (int64_t i = 0; i < count; ++i)
    chosen[static_cast<size_t>(order[static_cast<size_t>(i)])] = true;
  SplitDataset out;
  for (size_t i = 0; i < examples.size(); ++i) {
    (chosen[i] ? out.valid : out.train).push_back(std::move(examples[i]));
  }
  return out;
}

Result<std::vector<PreviewSample>> PreviewDataset(const std::string& path, const Masker& masker,
                                                  const DatasetOptions& options, int64_t n) {
  std::vector<PreviewSample> out;
  ReadOptions read = options.read;
  read.max_rows = n;
  const auto take = [&](const Sample& sample) -> Status {
    EW_ASSIGN(const MaskedSample masked, masker.Mask(sample));
    PreviewSample preview;
    preview.where = sample.where;
    preview.format = sample.format;
    preview.rendered = masked.rendered;
    const size_t shown = std::min(masked.ids.size(), static_cast<size_t>(options.max_length));
    for (size_t t = 0; t < shown; ++t) {
      preview.tokens.push_back(
          {masker.tokenizer().PieceForDisplay(masked.ids[t]), masked.ids[t], masked.mask[t] != 0});
    }
    out.push_back(std::move(preview));
    return Status::Ok();
  };
  EW_RETURN_IF_ERROR(ReadSamples(path, read, take, options.split).status());
  return out;
}

}  // namespace edgewise::data
