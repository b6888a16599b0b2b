// Shell completion. Where a value is not one of a list the shell completes file names.
#include <fmt/format.h>

#include <algorithm>

#include "cli/describe.h"

namespace edgewise::cli {
namespace {

std::string Join(const std::vector<std::string>& words, std::string_view between = " ") {
  std::string out;
  for (const std::string& word : words) {
    if (!out.empty()) out += between;
    out += word;
  }
  return out;
}

std::string CommandNames(const ProgramDoc& program) {
  std::vector<std::string> names;
  for (const CommandDoc& c : program.commands) names.push_back(c.name);
  return Join(names);
}

// Inside of single quotes: 'it'\''s'.
std::string Quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      out += c == '\n' ? ' ' : c;
    }
  }
  return out + "'";
}

std::string Bash(const ProgramDoc& program) {
  std::string out = fmt::format(
      "# bash completion of {0}; put it into ~/.local/share/bash-completion/completions/{0}\n"
      "_{0}() {{\n"
      "  local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command= i\n"
      "  COMPREPLY=()\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    case ${{COMP_WORDS[i]}} in -*) ;; *) command=${{COMP_WORDS[i]}}; break ;; esac\n"
      "  done\n"
      "  case $command in\n"
      "    '') mapfile -t COMPREPLY < <(compgen -W '{1} --help --version' -- \"$cur\") ;;\n",
      program.name, CommandNames(program));
  for (const CommandDoc& c : program.commands) {
    std::vector<std::string> names;
    std::string values;
    for (const OptionDoc& o : c.options) {
      std::string words = Join(o.choices);
      if (o.positional) {
        if (!o.choices.empty()) {
          values += fmt::format(
              "        -*) ;;\n"
              "        *) [[ $cur == -* ]] || {{ mapfile -t COMPREPLY < <(compgen -W '{}' -- "
              "\"$cur\"); return; }} ;;\n",
              words);
        }
        continue;
      }
      names.insert(names.end(), o.names.begin(), o.names.end());
      if (!o.takes_value) continue;
      const std::string take =
          words.empty()
              ? "return"
              : fmt::format("mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\"); return", words);
      values = fmt::format("        {}) {} ;;\n", Join(o.names, "|"), take) + values;
    }
    out += fmt::format(
        "    {})\n"
        "      case $prev in\n{}      esac\n"
        "      [[ $cur == -* ]] && mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\") ;;\n",
        c.name, values, Join(names));
  }
  out += fmt::format("  esac\n}}\ncomplete -o default -F _{0} {0}\n", program.name);
  return out;
}

// In a spec of _arguments brackets and colons have a meaning.
std::string ZshText(std::string text) {
  std::string out;
  for (char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string Zsh(const ProgramDoc& program) {
  std::string out =
      fmt::format("#compdef {0}\n_{0}() {{\n  local -a commands\n  commands=(\n", program.name);
  for (const CommandDoc& c : program.commands) {
    out += fmt::format("    {}\n", Quoted(fmt::format("{}:{}", ZshText(c.name), c.summary)));
  }
  out +=
      "  )\n  if (( CURRENT == 2 )); then\n    _describe command commands\n    return\n  fi\n"
      "  local command=${words[2]}\n  shift words\n  (( CURRENT-- ))\n  case $command in\n";
  for (const CommandDoc& c : program.commands) {
    out += fmt::format("    {}) _arguments -S", c.name);
    int position = 1;
    for (const OptionDoc& o : c.options) {
      const std::string action =
          o.choices.empty() ? "_files" : fmt::format("({})", Join(o.choices));
      if (o.positional) {
        out +=
            fmt::format(" \\\n      {}",
                        Quoted(fmt::format("{}:{}:{}", position++, ZshText(o.names[0]), action)));
        continue;
      }
      for (const std::string& name : o.names) {
        std::string spec = fmt::format(
            "{}{}[{}]", name, o.takes_value && name.starts_with("--") ? "=" : "", ZshText(o.help));
        if (o.takes_value) spec += fmt::format(":{}:{}", ZshText(o.value), action);
        out += fmt::format(" \\\n      {}", Quoted(spec));
      }
    }
    out += " ;;\n";
  }
  return out + fmt::format("  esac\n}}\n_{0} \"$@\"\n", program.name);
}

std::string Fish(const ProgramDoc& program) {
  std::string out = fmt::format("# fish completion of {0}\n", program.name);
  for (const CommandDoc& c : program.commands) {
    out += fmt::format("complete -c {} -n __fish_use_subcommand -f -a {} -d {}\n", program.name,
                       c.name, Quoted(c.summary));
  }
  for (const CommandDoc& c : program.commands) {
    const std::string when =
        fmt::format("complete -c {} -n '__fish_seen_subcommand_from {}'", program.name, c.name);
    for (const OptionDoc& o : c.options) {
      if (o.positional) {
        if (!o.choices.empty()) {
          out += fmt::format("{} -f -a {}\n", when, Quoted(Join(o.choices)));
        }
        continue;
      }
      out += when;
      for (const std::string& name : o.names) {
        const bool is_long = name.starts_with("--");
        out += fmt::format(" {} {}", is_long ? "-l" : "-s", name.substr(is_long ? 2 : 1));
      }
      if (!o.choices.empty()) {
        out += fmt::format(" -x -a {}", Quoted(Join(o.choices)));
      } else if (o.takes_value) {
        out += " -r";
      }
      out += fmt::format(" -d {}\n", Quoted(o.help));
    }
  }
  return out;
}

}  // namespace

std::string CompletionScript(const ProgramDoc& program, const std::string& shell) {
  if (shell == "bash") return Bash(program);
  if (shell == "zsh") return Zsh(program);
  if (shell == "fish") return Fish(program);
  return "";
}

}  // namespace edgewise::cli
