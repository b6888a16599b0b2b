#include "cli/app.h"

int main(int argc, char** argv) {
  edgewise::cli::HoldStandardStreams();
  edgewise::cli::IgnoreClosedPipes();
  return edgewise::cli::RunProgram(argc, argv);
}
