// A project of its own that uses the installed library: sizes, files, threads and random numbers.
#include <cstdio>
#include <string>
#include <vector>

#include "base/rng.h"
#include "base/units.h"
#include "exec/context.h"
#include "io/env.h"

namespace {

edgewise::Status Run(const std::string& dir) {
  EW_ASSIGN(const int64_t bytes, edgewise::ParseBytes("2GiB"));
  if (bytes != int64_t{2} << 30) return edgewise::Internal("2GiB was misread");
  const std::string path = edgewise::JoinPath(dir, "note.txt");
  EW_RETURN_IF_ERROR(edgewise::WriteFileAtomic(edgewise::PosixEnv(), path, "hello"));
  EW_ASSIGN(const std::string text, edgewise::PosixEnv().ReadFile(path, 100));
  if (text != "hello") return edgewise::Internal("the file holds " + text);

  EW_ASSIGN(auto exec, edgewise::ExecContext::Create({.threads = 2}));
  std::vector<double> values(1000);
  exec->ParallelFor(1000, 64, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      values[i] = edgewise::Rng(1, edgewise::RngStream::kTest, i).NextDouble();
    }
  });
  for (double v : values) {
    if (v < 0 || v >= 1) return edgewise::Internal("a random number outside [0, 1)");
  }
  return edgewise::Status::Ok();
}

}  // namespace

int main(int argc, char** argv) {
  const edgewise::Status status = Run(argc > 1 ? argv[1] : ".");
  if (!status.ok()) std::fprintf(stderr, "error: %s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
