// Data files, row by row.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/status.h"
#include "data/sample.h"

namespace edgewise::data {

enum class BadRows {
  kError,  // the first bad row ends the reading; the error names file and line
  kSkip,   // bad rows are counted and left out
};

struct ReadOptions {
  ColumnMap columns;
  BadRows bad_rows = BadRows::kError;
  int64_t max_rows = -1;                      // stop after so many good rows; < 0: all
  int64_t max_row_bytes = int64_t{64} << 20;  // a longer row is a bad row
  // Plain text files: documents end here (and the separator itself is dropped).
  std::string document_separator = "<|endoftext|>";
};

struct ReadReport {
  int64_t rows = 0;   // good ones
  int64_t blank = 0;  // empty lines
  int64_t bad = 0;
  std::vector<std::string> first_bad;  // messages of the first few, "file:line: what"
};

// The files that a path names: a file is training data; a directory holds train, valid (or
// validation, val, dev) and test with .jsonl, .json or .txt. Absent splits are "".
struct DataFiles {
  std::string train, valid, test;
};
Result<DataFiles> FindDataFiles(const std::string& path);

// Reads .jsonl (one object a line), .json (an array of objects, or JSON lines) or .txt, calling
// `take` for every good row in order; an error of `take` counts as the row's. A .json object that
// maps split names to lists of [text, label] pairs (clinc150) is read as prompt and completion;
// `split` says which.
// Errors: a file of another kind (says how to convert it), a bad row when they are not skipped, no
// good row at all.
Result<ReadReport> ReadSamples(const std::string& path, const ReadOptions& options,
                               const std::function<Status(Sample)>& take,
                               const std::string& split = "train");

}  // namespace edgewise::data
