#include "cli/app.h"

int main(int argc, char** argv) {
  edgewise::cli::InstallSignalHandlers();
  return edgewise::cli::RunProgram(argc, argv);
}
