#include "report/table.h"

#include <algorithm>
#include <sstream>

namespace edgewise::report {
namespace {

bool IsContinuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }

bool LooksNumeric(const std::string& cell) {
  if (cell.empty()) return true;
  const char c = cell.front();
  return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.';
}

// At most `width` columns, the last two of them ".." when something was cut.
std::string Cut(const std::string& text, int width) {
  if (DisplayWidth(text) <= width) return text;
  std::string out;
  int used = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (!IsContinuation(text[i]) && ++used > width - 2) break;
    out += text[i];
  }
  return out + "..";
}

}  // namespace

int DisplayWidth(const std::string& text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), [](char c) { return !IsContinuation(c); }));
}

std::string Wrap(const std::string& text, int indent, int column, int max_width) {
  std::istringstream words(text);
  std::string out;
  bool first = true;
  for (std::string word; words >> word;) {
    const int width = DisplayWidth(word);
    if (!first && column + 1 + width > max_width) {
      out += '\n';
      out.append(static_cast<size_t>(indent), ' ');
      column = indent;
    } else if (!first) {
      out += ' ';
      ++column;
    }
    out += word;
    column += width;
    first = false;
  }
  return out;
}

std::string WrapLines(const std::string& text, int indent) {
  std::istringstream lines(text);
  std::string out;
  for (std::string line; std::getline(lines, line);) {
    if (!out.empty()) out += '\n';
    out += Wrap(line, indent);
  }
  return out;
}

void Table::AddRow(std::vector<std::string> cells) {
  if (!header_.empty()) cells.resize(header_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::Render(int max_width) const {
  size_t columns = header_.size();
  for (const auto& row : rows_) columns = std::max(columns, row.size());
  if (columns == 0) return "";

  std::vector<int> width(columns, 0);
  std::vector<bool> right(columns, !rows_.empty());
  for (size_t c = 0; c < header_.size(); ++c) width[c] = DisplayWidth(header_[c]);
  for (const auto& row : rows_) {
    for (size_t c = 0; c < row.size(); ++c) {
      width[c] = std::max(width[c], DisplayWidth(row[c]));
      if (!LooksNumeric(row[c])) right[c] = false;
    }
  }
  int total = static_cast<int>(2 * (columns - 1));
  for (int w : width) total += w;
  if (total > max_width) width[0] = std::max(8, width[0] - (total - max_width));

  std::string out;
  auto add_line = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t c = 0; c < columns; ++c) {
      const std::string cell = Cut(c < cells.size() ? cells[c] : "", width[c]);
      const std::string pad(static_cast<size_t>(width[c] - DisplayWidth(cell)), ' ');
      line += c == 0 ? "" : "  ";
      line += right[c] ? pad + cell : cell + pad;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  if (!header_.empty()) {
    add_line(header_);
    std::vector<std::string> rule;
    for (int w : width) rule.emplace_back(static_cast<size_t>(w), '-');
    add_line(rule);
  }
  for (const auto& row : rows_) add_line(row);
  return out;
}

}  // namespace edgewise::report
