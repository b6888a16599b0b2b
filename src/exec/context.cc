#include "exec/context.h"

#include <fmt/format.h>

namespace edgewise {

Result<std::unique_ptr<ExecContext>> ExecContext::Create(ExecOptions options) {
  Isa isa;
  if (options.isa != nullptr) {
    isa = *options.isa;
    if (!IsaSupported(isa)) {
      return Unsupported(fmt::format("{} cannot run on this processor", IsaName(isa)));
    }
  } else {
    EW_ASSIGN(isa, ChooseIsa());
  }
  const int threads = options.threads > 0 ? options.threads : GetCpuInfo().cores;
  std::unique_ptr<ExecContext> context(new ExecContext(threads, isa));
  // Fewer would compute the same, but have left no memory or no room for anything else.
  if (context->threads() < threads) {
    return OutOfMemory(
        fmt::format("the system gave {} of {} threads (ulimit -d and ulimit -u limit "
                    "them, and cgroups do); fewer --threads need less",
                    context->threads(), threads));
  }
  return context;
}

void* ExecContext::Scratch(int worker, size_t bytes) {
  AlignedBuffer& buffer = scratch_[static_cast<size_t>(worker)];
  if (buffer.size() < bytes) {
    buffer.Reset();
    buffer = AlignedBuffer(bytes);
  }
  return buffer.data();
}

void* ExecContext::SharedScratch(size_t bytes) {
  if (shared_.size() < bytes) {
    shared_.Reset();
    shared_ = AlignedBuffer(bytes);
  }
  return shared_.data();
}

int64_t ExecContext::scratch_bytes() const {
  size_t bytes = shared_.size();
  for (const AlignedBuffer& buffer : scratch_) bytes += buffer.size();
  return static_cast<int64_t>(bytes);
}

}  // namespace edgewise
