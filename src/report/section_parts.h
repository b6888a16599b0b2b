// Small pieces that several sections are made of.
#pragma once

#include <fmt/format.h>

#include <string>
#include <vector>

#include "report/markup.h"

namespace edgewise::report {

inline std::string Section(const std::string& heading, const std::string& lead,
                           const std::string& body) {
  return "<section>\n" + Element("h2", heading) + "\n" + (lead.empty() ? "" : Element("p", lead)) +
         body + "</section>\n";
}

inline std::string Percent(double share) { return fmt::format("{:.1f}%", 100 * share); }

// Three digits behind the point, or two that count where those would be zeros.
inline std::string LossText(double loss) {
  return loss < 0.1 ? fmt::format("{:.2g}", loss) : fmt::format("{:.3f}", loss);
}

// A table of figures that becomes a list of cards on a phone. The first column names the row.
struct ScoreTable {
  std::vector<std::string> header;
  struct Row {
    std::vector<std::string> cells;
    bool highlighted = false;
  };
  std::vector<Row> rows;

  std::string Html() const {
    std::string out = "<table class=\"scores\"><thead><tr>";
    for (size_t c = 0; c < header.size(); ++c) {
      out += Element("th", header[c], c == 0 ? "" : " class=\"n\"");
    }
    out += "</tr></thead><tbody>\n";
    for (const Row& row : rows) {
      out += row.highlighted ? "<tr class=\"this\">" : "<tr>";
      for (size_t c = 0; c < header.size() && c < row.cells.size(); ++c) {
        out += c == 0 ? Element("th", row.cells[c])
                      : Element("td", row.cells[c],
                                " class=\"n\" data-name=\"" + EscapeHtml(header[c]) + "\"");
      }
      out += "</tr>\n";
    }
    return out + "</tbody></table>\n";
  }
};

}  // namespace edgewise::report
