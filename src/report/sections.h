// The parts of a report, each as HTML; "" where the run has nothing to show for it.
#pragma once

#include <string>

#include "report/run_report.h"

namespace edgewise::report {

std::string SummarySection(const RunReport& report);      // the figures that matter most
std::string SamplesSection(const RunReport& report);      // answers before and after
std::string LossSection(const RunReport& report);         // training and validation, by exit
std::string ExitsSection(const RunReport& report);        // each exit alone, the vote
std::string MemorySection(const RunReport& report);       // over time, by category, with the limit
std::string PredictionSection(const RunReport& report);   // what was foretold, and what came
std::string SensitivitySection(const RunReport& report);  // heat map
std::string PolicySection(const RunReport& report);       // bits and zeros of the packed base
std::string ScheduleSection(const RunReport& report);     // who does what when
std::string ComparisonSection(const RunReport& report);   // against other runs
std::string ProvenanceSection(const RunReport& report);   // where it all comes from

}  // namespace edgewise::report
