// Answers of a model before and after tuning, for the report.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/data_options.h"
#include "report/run_report.h"

namespace edgewise::cli {

struct SampleRequest {
  std::string model;  // the base, as the user named it
  std::string run;    // its run directory
  std::string data;   // a file, or a directory: its test, else its valid, else its train file
  DataFlags data_flags;
  int64_t count = 4;        // first rows that have an answer
  int64_t max_tokens = 64;  // of one answer
  bool trained = false;     // the rows are training data
};

// Both models answer greedily; they are opened one after the other. Errors: whatever opening the
// model, the adapter or the data finds; kInterrupted.
Result<std::vector<report::ReportSample>> MakeSamples(Invocation& inv,
                                                      const SampleRequest& request);

// Draws RUN/report.html from the files of the run, with answers (kept in RUN/samples.json) when
// request.count > 0. Returns the path.
Result<std::string> WriteRunReport(Invocation& inv, const SampleRequest& request);

}  // namespace edgewise::cli
