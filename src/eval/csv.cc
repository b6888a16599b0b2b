#include "eval/csv.h"

#include <fmt/format.h>

namespace edgewise::eval {

Result<std::vector<std::vector<std::string>>> ParseCsv(std::string_view text) {
  std::vector<std::vector<std::string>> rows;
  size_t i = 0;
  int64_t line = 1;
  while (i < text.size()) {
    std::vector<std::string> row;
    bool more = true;
    while (more) {
      std::string field;
      if (i < text.size() && text[i] == '"') {
        const int64_t opened = line;
        for (++i;; ++i) {
          if (i >= text.size()) return BadInput(fmt::format("line {}: quote not closed", opened));
          if (text[i] == '\n') ++line;
          if (text[i] != '"') {
            field += text[i];
          } else if (i + 1 < text.size() && text[i + 1] == '"') {
            field += text[i++];
          } else {
            ++i;
            break;
          }
        }
        if (i < text.size() && text[i] != ',' && text[i] != '\n' && text[i] != '\r') {
          return BadInput(fmt::format("line {}: text after a closing quote", line));
        }
      } else {
        while (i < text.size() && text[i] != ',' && text[i] != '\n' && text[i] != '\r') {
          field += text[i++];
        }
      }
      row.push_back(std::move(field));
      more = i < text.size() && text[i] == ',';
      if (more) ++i;
    }
    if (i < text.size() && text[i] == '\r') ++i;
    if (i < text.size() && text[i] == '\n') {
      ++i;
      ++line;
    }
    if (row.size() > 1 || !row[0].empty()) rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace edgewise::eval
