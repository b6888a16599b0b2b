#include "exec/thread_pool.h"

#include <algorithm>
#include <system_error>

namespace edgewise {
namespace {

// About 20 microseconds: kernels of one step follow each other closely, and waking a thread through
// the kernel costs more than that.
constexpr int kSpins = 4000;

inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  workers_.reserve(static_cast<size_t>(std::max(0, threads - 1)));
  try {
    for (int w = 1; w < threads; ++w) {
      workers_.emplace_back([this, w] { WorkerLoop(w); });
    }
  } catch (const std::system_error&) {
    // The system gives no more; those that run already must not be left behind by an exception.
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
    ticket_.fetch_add(uint64_t{1} << 32);
  }
  wake_.notify_all();
  for (std::thread& t : workers_) t.join();
}

void ThreadPool::Work(uint32_t epoch, int worker) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  for (;;) {
    const auto left = static_cast<uint32_t>(ticket);
    if (static_cast<uint32_t>(ticket >> 32) != epoch || left == 0) return;
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel)) continue;
    // From the last task to the first: with causal work the long ones start early.
    (*fn_)(static_cast<int64_t>(left) - 1, worker);
    unfinished_.fetch_sub(1, std::memory_order_release);
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::WorkerLoop(int worker) {
  const auto epoch_now = [this] {
    return static_cast<uint32_t>(ticket_.load(std::memory_order_acquire) >> 32);
  };
  uint32_t seen = 0;
  for (;;) {
    int spins = 0;
    while (epoch_now() == seen) {
      if (++spins < kSpins) {
        Pause();
        continue;
      }
      std::unique_lock lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, [&] { return epoch_now() != seen; });
      sleeping_.fetch_sub(1);
    }
    // In this order: a worker that is late may see the epoch of the end here, which is the last.
    seen = epoch_now();
    if (stop_.load()) return;
    Work(seen, worker);
  }
}

void ThreadPool::Run(int64_t tasks, Fn fn) {
  if (tasks <= 0) return;
  if (tasks == 1 || workers_.empty()) {
    for (int64_t t = tasks - 1; t >= 0; --t) fn(t, 0);
    return;
  }
  fn_ = &fn;
  unfinished_.store(tasks, std::memory_order_relaxed);
  const auto epoch =
      static_cast<uint32_t>(ticket_.load(std::memory_order_relaxed) >> 32) + uint32_t{1};
  ticket_.store((uint64_t{epoch} << 32) | static_cast<uint64_t>(tasks), std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst) > 0) {
    // Taking the lock orders this with a worker that is about to sleep.
    { std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  Work(epoch, 0);
  int spins = 0;
  while (unfinished_.load(std::memory_order_acquire) != 0) {
    if (++spins < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace edgewise
