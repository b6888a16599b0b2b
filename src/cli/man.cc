// Man pages in the language of man(7).
#include <fmt/format.h>

#include <algorithm>

#include "cli/describe.h"

namespace edgewise::cli {
namespace {

// Text of a page: backslashes and dashes are meant as they are, and no line begins with a control
// character.
std::string Escape(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && (i == 0 || text[i - 1] == '\n')) {
      out += std::string("\\&") + c;
    } else {
      out += c;
    }
  }
  return out;
}

std::string Upper(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

std::string Title(const ProgramDoc& program, const std::string& page) {
  return fmt::format(".TH {} 1 \"\" \"{} {}\" \"User Commands\"\n", Upper(page), program.name,
                     program.version);
}

std::string OptionEntry(const OptionDoc& o) {
  std::string names;
  for (const std::string& name : o.names) {
    if (!names.empty()) names += ", ";
    names += fmt::format("\\fB{}\\fR", Escape(name));
  }
  if (o.takes_value && !o.positional) {
    std::string value = o.value;
    if (!o.choices.empty()) {
      value.clear();
      for (const std::string& c : o.choices) value += (value.empty() ? "" : "|") + c;
    }
    names += fmt::format(" \\fI{}\\fR", Escape(value));
  }
  std::string help = o.help;
  if (o.required) help += help.empty() ? "Required." : " (required)";
  if (!o.default_value.empty()) help += fmt::format(" [default: {}]", o.default_value);
  return fmt::format(".TP\n{}\n{}\n", names, Escape(help.empty() ? "See above." : help));
}

}  // namespace

std::string ManPage(const ProgramDoc& program, const CommandDoc* command) {
  if (command == nullptr) {
    std::string out = Title(program, program.name);
    const std::string first = program.description.substr(0, program.description.find('\n'));
    out += fmt::format(".SH NAME\n{} \\- {}\n", program.name, Escape(first));
    out += fmt::format(".SH SYNOPSIS\n.B {}\n.I COMMAND\n[options]\n", program.name);
    out +=
        fmt::format(".SH DESCRIPTION\n.nf\n{}\n.fi\n.SH COMMANDS\n", Escape(program.description));
    for (const CommandDoc& c : program.commands) {
      out += fmt::format(".TP\n\\fB{}\\fR\n{}\n", Escape(c.name), Escape(c.summary));
    }
    out += fmt::format(".SH NOTES\n.nf\n{}\n.fi\n.SH SEE ALSO\n", Escape(program.footer));
    std::string pages;
    for (const CommandDoc& c : program.commands) {
      pages += fmt::format("{}.BR {}\\-{} (1)", pages.empty() ? "" : " ,\n", program.name,
                           Escape(c.name));
    }
    return out + pages + "\n";
  }
  const std::string page = program.name + "-" + command->name;
  std::string out = Title(program, page);
  out += fmt::format(".SH NAME\n{} \\- {}\n", Escape(page), Escape(command->summary));
  out += fmt::format(".SH SYNOPSIS\n.B {} {}\n[options]", program.name, Escape(command->name));
  for (const OptionDoc& o : command->options) {
    if (o.positional) out += fmt::format("\n.I {}", Escape(o.names[0]));
  }
  out += "\n.SH OPTIONS\n";
  // Groups in the order of their first option, as in the help text.
  std::vector<std::string> groups;
  for (const OptionDoc& o : command->options) {
    if (std::find(groups.begin(), groups.end(), o.group) == groups.end()) groups.push_back(o.group);
  }
  for (const std::string& group : groups) {
    if (groups.size() > 1) out += fmt::format(".SS {}\n", Escape(group));
    for (const OptionDoc& o : command->options) {
      if (o.group == group) out += OptionEntry(o);
    }
  }
  return out + fmt::format(".SH SEE ALSO\n.BR {} (1)\n", program.name);
}

}  // namespace edgewise::cli
