// A fixed set of threads that run numbered tasks. What a task computes must not depend on the
// thread that runs it or on how many there are: callers cut work by shape, never by thread count,
// so results are the same bits with any number of threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

namespace edgewise {

// Non-owning reference to a callable; valid during the call it is passed to.
template <typename Signature>
class FunctionRef;
template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  template <typename F,
            typename = std::enable_if_t<!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>>>
  FunctionRef(F&& f)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(f)))),
        call_([](void* o, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(o))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class ThreadPool {
 public:
  // `threads` >= 1, the caller's thread included.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(task, worker) for task in [0, tasks), worker in [0, threads()); returns when all are
  // done. Tasks are handed out in order as threads become free. Not reentrant: a task must not call
  // Run; use from one thread at a time.
  void Run(int64_t tasks, FunctionRef<void(int64_t task, int worker)> fn);

 private:
  using Fn = FunctionRef<void(int64_t, int)>;
  void WorkerLoop(int worker);
  void Work(int worker);

  std::vector<std::thread> workers_;
  // Constant during one Run.
  const Fn* fn_ = nullptr;
  int64_t tasks_ = 0;
  std::atomic<int64_t> next_{0};
  std::atomic<uint64_t> epoch_{0};
  std::atomic<int> busy_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace edgewise
