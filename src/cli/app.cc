#include "cli/app.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <new>

#include "cli/command.h"
#include "cli/config_file.h"
#include "cli/describe.h"
#include "cli/help_format.h"
#include "cli/suggest.h"
#include "cli/usage_error.h"
#include "io/env.h"
#include "schedule/kernel_search.h"

namespace edgewise::cli {
namespace {

constexpr char kDescription[] =
    "Adapts language models on the machine they run on.\n"
    "MODEL is a Hugging Face directory, a GGUF file, or a hub id in the local cache.";

constexpr char kFooter[] =
    "First steps:\n"
    "  edgewise tune MODEL --data chats.jsonl -o run   adapt a model to your data\n"
    "  edgewise chat MODEL --adapter run               talk with the result\n"
    "  edgewise report run                             look at what happened\n"
    "'edgewise COMMAND --help' lists the options of a command.\n"
    "Exit codes: 0 done, 1 wrong use, 2 bad input, 3 does not fit the memory limit,\n"
    "4 interrupted with state saved, 5 finished but a save failed, 70 a bug.";

void DeclareCommon(CLI::App& app, CommonOptions& common) {
  app.option_defaults()->group("Every command");
  app.add_flag("--json", common.json, "Print one JSON object on stdout");
  app.add_flag("--quiet,-q", common.quiet, "No progress and logs on stderr");
  app.add_option("--threads", common.threads, "Threads (default: all that the process may use)")
      ->check(CLI::Range(0, 4096));
  app.add_option("--isa", common.isa, "Force an instruction set: generic, avx2, avx512-vnni, ...");
  app.add_option("--config", common.config, "YAML file with options; the command line wins");
}

// Under which heading of the help text a command stands.
const char* GroupOf(const std::string& name) {
  static constexpr struct {
    const char* group;
    std::string_view names;
  } kGroups[] = {
      {"Adapt a model", " tune merge export "},
      {"Use it", " generate chat eval "},
      {"Make it smaller, plan the work", " profile compress plan device search-kernels "},
      {"Look and measure", " report inspect tokenize bench random-base "},
  };
  for (const auto& [group, names] : kGroups) {
    if (names.find(" " + name + " ") != std::string_view::npos) return group;
  }
  return "Other";
}

// `man COMMAND` prints a page, `man -o DIR` writes all of them.
Status WriteManPages(const ProgramDoc& program, const std::string& topic, const std::string& dir,
                     Console& console) {
  if (dir.empty()) {
    const auto found = std::find_if(program.commands.begin(), program.commands.end(),
                                    [&](const CommandDoc& c) { return c.name == topic; });
    if (!topic.empty() && found == program.commands.end()) {
      return InvalidArgument("no command '" + topic + "'");
    }
    console.Text(ManPage(program, topic.empty() ? nullptr : &*found));
    return Status::Ok();
  }
  Env& env = PosixEnv();
  EW_RETURN_IF_ERROR(env.CreateDirs(dir));
  EW_RETURN_IF_ERROR(
      WriteFileAtomic(env, JoinPath(dir, program.name + ".1"), ManPage(program, nullptr)));
  for (const CommandDoc& c : program.commands) {
    EW_RETURN_IF_ERROR(WriteFileAtomic(env, JoinPath(dir, program.name + "-" + c.name + ".1"),
                                       ManPage(program, &c)));
  }
  return Status::Ok();
}

// CLI11 would stop at the first unknown argument with its own words; they are collected instead, so
// that the message can name the nearest option.
Status CheckRemaining(const CLI::App& command) {
  const std::vector<std::string> rest = command.remaining();
  const auto unknown = std::find_if(rest.begin(), rest.end(), [](const std::string& arg) {
    return arg.size() > 1 && arg[0] == '-';
  });
  if (unknown != rest.end()) {
    const std::string name = unknown->substr(0, unknown->find('='));
    std::vector<std::string> known;
    for (const CLI::Option* option : command.get_options()) {
      for (const std::string& l : option->get_lnames()) known.push_back("--" + l);
    }
    return InvalidArgument(fmt::format("unknown option {} for '{}'{}", name, command.get_name(),
                                       DidYouMean(name, known)));
  }
  if (!rest.empty()) {
    return InvalidArgument(
        fmt::format("unexpected argument '{}' for '{}'", rest[0], command.get_name()));
  }
  return Status::Ok();
}

Status RunCommand(Command& command, CLI::App& app, CommonOptions& common, Console& console) {
  Invocation inv(common, console);
  try {
    return command.Run(inv);
  } catch (const std::bad_alloc&) {
    return OutOfMemory("out of memory in '" + app.get_name() + "'");
  } catch (const std::exception& error) {
    return Internal(fmt::format("unexpected exception in '{}': {}", app.get_name(), error.what()));
  }
}

// What stands under an error of wrong use.
void PrintHelpHint(const std::string& command) {
  WriteStderr(fmt::format("'edgewise {} --help' lists the options\n", command));
}

// --json anywhere on the command line, for errors found before options are known.
bool WantsJson(int argc, char** argv) {
  return std::any_of(argv + 1, argv + argc,
                     [](const char* a) { return std::string(a) == "--json"; });
}

int Main(int argc, char** argv) {
  CLI::App app(kDescription, "edgewise");
  app.footer(kFooter);
  app.formatter(std::make_shared<HelpFormatter>());
  app.set_version_flag("--version", std::string("edgewise ") + EDGEWISE_VERSION);
  app.require_subcommand(0, 1);
  app.allow_extras();

  CommonOptions common;
  auto commands = MakeCommands();
  std::vector<CLI::App*> apps;
  std::vector<std::string> names;
  for (auto& command : commands) {
    CLI::App* sub = app.add_subcommand(command->name(), command->summary());
    sub->allow_extras();
    sub->group(GroupOf(command->name()));
    command->Declare(*sub);
    DeclareCommon(*sub, common);
    // An option given twice: the last one counts, so that scripts can append their own.
    for (CLI::Option* option : sub->get_options()) {
      if (option->get_items_expected_max() == 1) {
        option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
      }
    }
    apps.push_back(sub);
    names.push_back(command->name());
  }
  std::string help_topic;
  Console words(false, false);  // of what is printed without a command
  CLI::App* help = app.add_subcommand("help", "Explain a command");
  help->add_option("command", help_topic, "Command to explain");
  std::string shell, man_topic, man_dir;
  CLI::App* completion = app.add_subcommand("completion", "Shell completion, to be sourced");
  completion->add_option("shell", shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  CLI::App* man = app.add_subcommand("man", "Manual pages, for man(1)");
  man->add_option("command", man_topic, "Command to print the page of (default: the program's)");
  man->add_option("-o,--output", man_dir, "Write all pages into this directory");
  for (CLI::App* sub : {help, completion, man}) {
    sub->group("Help");
    if (sub == help) continue;
    apps.push_back(sub);
    names.push_back(sub->get_name());
  }
  names.push_back("help");

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::Error& error) {
    const int code =
        Console(WantsJson(argc, argv), false).Finish(InvalidArgument(UsageErrorText(error.what())));
    if (std::find(names.begin(), names.end(), argv[1]) != names.end()) PrintHelpHint(argv[1]);
    return code;
  }

  if (help->parsed()) {
    const auto found = std::find(names.begin(), names.end(), help_topic);
    if (help_topic.empty() || help_topic == "help") {
      words.Text(app.help());
    } else if (found != names.end()) {
      words.Text(apps[static_cast<size_t>(found - names.begin())]->help());
    } else {
      return words.Finish(InvalidArgument(
          fmt::format("no command '{}'{}", help_topic, DidYouMean(help_topic, names))));
    }
    return words.Finish(Status::Ok());
  }

  if (completion->parsed()) {
    words.Text(CompletionScript(Describe(app, EDGEWISE_VERSION), shell));
    return words.Finish(Status::Ok());
  }
  if (man->parsed()) {
    return words.Finish(WriteManPages(Describe(app, EDGEWISE_VERSION), man_topic, man_dir, words));
  }

  for (size_t i = 0; i < commands.size(); ++i) {
    if (!apps[i]->parsed()) continue;
    Status status = CheckRemaining(*apps[i]);
    if (status.ok() && !common.config.empty()) status = ApplyConfigFile(common.config, *apps[i]);
    Console console(common.json, common.quiet);
    if (status.ok()) status = RunCommand(*commands[i], *apps[i], common, console);
    const int code = console.Finish(status);
    if (status.code() == StatusCode::kInvalidArgument) PrintHelpHint(commands[i]->name());
    return code;
  }

  const std::vector<std::string> rest = app.remaining();
  if (rest.empty()) {
    WriteStderr(app.help());
    return ExitCode(StatusCode::kInvalidArgument);
  }
  return Console(WantsJson(argc, argv), false)
      .Finish(InvalidArgument(fmt::format("no command '{}'{}; 'edgewise --help' lists them",
                                          rest[0], DidYouMean(rest[0], names))));
}

}  // namespace

Result<ExecContext*> Invocation::Exec() {
  if (exec_ == nullptr) {
    ExecOptions options;
    options.threads = common_.threads;
    Isa isa{};
    if (!common_.isa.empty()) {
      Result<Isa> parsed = ParseIsa(common_.isa);
      if (!parsed.ok()) return InvalidArgument("--isa: " + parsed.status().message());
      isa = *parsed;
      options.isa = &isa;
    }
    EW_ASSIGN(exec_, ExecContext::Create(options));
  }
  return exec_.get();
}

Result<const kernels::KernelTuning*> Invocation::Tuning() {
  if (tuning_ == nullptr) {
    EW_ASSIGN(ExecContext * ctx, Exec());
    tuning_ = std::make_unique<kernels::KernelTuning>();
    const std::string path = schedule::TuningPath(*ctx, EDGEWISE_VERSION);
    const Status read = schedule::LoadTuning(path, tuning_.get());
    // Speed is all that it is about: a file that cannot be read stops nothing.
    if (!read.ok()) {
      *tuning_ = {};
      console_.Log("note: " + read.message());
    }
  }
  return tuning_.get();
}

int RunProgram(int argc, char** argv) {
  try {
    return Main(argc, argv);
  } catch (const std::exception& error) {
    return Console(WantsJson(argc, argv), false)
        .Finish(Internal(fmt::format("unexpected exception: {}", error.what())));
  }
}

}  // namespace edgewise::cli
