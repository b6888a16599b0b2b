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
  // `threads` >= 1, the caller's thread included. Where the system gives fewer, threads() says how
  // many there are.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(task, worker) for task in [0, tasks), worker in [0, threads()); returns when all are
  // done. A thread that the system does not schedule is not waited for: the others take its tasks.
  // tasks < 2^32. Not reentrant: a task must not call Run; use from one thread at a time.
  void Run(int64_t tasks, FunctionRef<void(int64_t task, int worker)> fn);

 private:
  using Fn = FunctionRef<void(int64_t, int)>;
  void WorkerLoop(int worker);
  // Takes and runs tasks of the run `epoch` until none is left.
  void Work(uint32_t epoch, int worker);

  std::vector<std::thread> workers_;
  // Written by Run only while no task of an earlier run is unfinished; read by a thread only
  // between taking a task and finishing it.
  const Fn* fn_ = nullptr;
  // (epoch << 32) | tasks not yet taken. One word, so that a thread that comes late can never take
  // a task of a run it does not belong to.
  std::atomic<uint64_t> ticket_{0};
  std::atomic<int64_t> unfinished_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
};

}  // namespace edgewise
