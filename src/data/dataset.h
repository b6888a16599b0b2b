// Tokenised examples, ready to be packed into batches.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/masking.h"
#include "data/reader.h"

namespace edgewise::data {

// One document. targets[t] is what the model must predict after token t: ids[t + 1] where that is
// learned, else TokenBatch::kNoTarget; the last token has none.
struct Example {
  std::vector<int32_t> ids;
  std::vector<int32_t> targets;
  uint64_t key = 0;  // hash of ids: what depends on the tokens alone may be cached under it
};

Example MakeExample(const std::vector<int32_t>& ids, const std::vector<uint8_t>& mask);
// Number of targets.
int64_t CountTargets(const Example& example);

struct DatasetOptions {
  int64_t max_length = 1024;  // tokens of one example
  ReadOptions read;
  std::string split = "train";  // of files that hold several
};

// What became of the rows.
struct DatasetReport {
  ReadReport read;
  int64_t examples = 0;
  int64_t tokens = 0;
  int64_t learned_tokens = 0;
  int64_t longest = 0;    // tokens of the longest row before cutting
  int64_t truncated = 0;  // chat rows that lost their end
  int64_t truncated_tokens = 0;
  int64_t split = 0;         // text rows that were cut into several examples
  int64_t unsupervised = 0;  // rows left out because nothing in them is learned
  int64_t straddling = 0;    // rows with a token across the end of a prompt
};
// A few lines for people: counts, and warnings where something was lost.
std::string Describe(const DatasetReport& report);

struct Dataset {
  std::vector<Example> examples;
  DatasetReport report;
  // Hash over the keys and targets of all examples, in order.
  std::string fingerprint() const;
};

// Rows longer than max_length: chat rows and token rows are cut at the end; text is cut into
// consecutive examples that overlap by one token, so that every token is still predicted once.
// Errors: of reading and masking (named by file and line, unless bad rows are skipped), or no
// token of the whole set is learned.
Result<Dataset> LoadDataset(const std::string& path, const Masker& masker,
                            const DatasetOptions& options);

// Moves a random share of the examples (at least one, not all) into a validation set; which ones
// is a pure function of the seed and the number of examples. Error: fewer than two examples, or a
// fraction outside of (0, 1).
struct SplitDataset {
  std::vector<Example> train, valid;
};
Result<SplitDataset> SplitForValidation(std::vector<Example> examples, double fraction,
                                        uint64_t seed);

// The first `n` good rows as they will be learned, for people to look at.
struct PreviewToken {
  std::string piece;
  int32_t id = 0;
  bool learned = false;
};
struct PreviewSample {
  std::string where;
  Format format = Format::kText;
  std::string rendered;
  std::vector<PreviewToken> tokens;
};
Result<std::vector<PreviewSample>> PreviewDataset(const std::string& path, const Masker& masker,
                                                  const DatasetOptions& options, int64_t n);

}  // namespace edgewise::data
