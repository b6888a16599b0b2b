// Plain-text tables for terminals: columns sized by their contents, numbers to the right, at most
// 80 columns wide where the first column can be shortened to get there.
#pragma once

#include <string>
#include <vector>

namespace edgewise::report {

class Table {
 public:
  // One header a column; an empty list makes a table without a header line.
  explicit Table(std::vector<std::string> header) : header_(std::move(header)) {}

  // Missing cells are empty, surplus ones are dropped when there is a header.
  void AddRow(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }

  // Lines ending in '\n'. A column whose cells all look like numbers is aligned right. Cells of the
  // first column are cut with ".." when the table is wider than `max_width` columns.
  std::string Render(int max_width = 80) const;

 private:
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

// The words of `text` in lines of at most `max_width` columns (longer words stand alone), all but
// the first behind `indent` spaces; `column`: where the first word stands. No line end at the end.
std::string Wrap(const std::string& text, int indent = 0, int column = 0, int max_width = 80);

// Every line of `text` by itself, further lines behind `indent` spaces. No line end at the end.
std::string WrapLines(const std::string& text, int indent);

// Columns that a string takes on a terminal: its code points (invalid UTF-8 counts by byte).
int DisplayWidth(const std::string& text);

}  // namespace edgewise::report
