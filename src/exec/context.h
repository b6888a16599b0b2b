// What a computation runs on, passed down explicitly: there are no globals, and two engines can
// live in one process.
#pragma once

#include <memory>
#include <vector>

#include "base/aligned_buffer.h"
#include "exec/cpu.h"
#include "exec/thread_pool.h"

namespace edgewise {

struct ExecOptions {
  int threads = 0;  // 0: as many as the process may use
  // Unset: ChooseIsa().
  const Isa* isa = nullptr;
};

class ExecContext {
 public:
  // Error: the forced instruction set is unknown or cannot run here.
  static Result<std::unique_ptr<ExecContext>> Create(ExecOptions options = {});

  Isa isa() const { return isa_; }
  const CpuInfo& cpu() const { return GetCpuInfo(); }
  ThreadPool& pool() { return pool_; }
  int threads() const { return pool_.threads(); }

  // Scratch of one worker, at least `bytes`, 64-byte aligned, contents undefined; grows and is then
  // kept, so that steady-state loops do not allocate. Valid until the next call for this worker.
  void* Scratch(int worker, size_t bytes);
  // Scratch shared by all workers of one operation (packed panels): same rules, separate storage.
  void* SharedScratch(size_t bytes);
  int64_t scratch_bytes() const;  // of both, as they have grown so far

  // fn(begin, end, worker) over [0, n) in blocks of `grain`.
  template <typename Fn>
  void ParallelFor(int64_t n, int64_t grain, Fn&& fn) {
    const int64_t tasks = (n + grain - 1) / grain;
    pool_.Run(tasks, [&](int64_t task, int worker) {
      const int64_t begin = task * grain;
      fn(begin, begin + grain < n ? begin + grain : n, worker);
    });
  }

 private:
  ExecContext(int threads, Isa isa) : isa_(isa), pool_(threads), scratch_(threads) {}

  Isa isa_;
  ThreadPool pool_;
  std::vector<AlignedBuffer> scratch_;
  AlignedBuffer shared_;
};

}  // namespace edgewise
