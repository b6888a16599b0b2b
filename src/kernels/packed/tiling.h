// How products with packed weights are cut into tasks, by the form of the weights: found by the
// kernel search (schedule/kernel_search.h), obeyed by the kernels. Only the cut changes, never the
// order of a sum: results are the same bits under any tuning.
#pragma once

#include <cstdint>
#include <map>
#include <tuple>

namespace edgewise::kernels {

// One product of many rows: weights [out, in] in some form.
struct ProductKey {
  int64_t out = 0, in = 0;
  int bits = 0;
  int structure = 0;  // Structure
  auto operator<=>(const ProductKey&) const = default;
};

// What tasks share that follow each other and that threads compute beside each other.
enum class LoopOrder {
  kPanels,  // rows of X, with one panel of W after the other
  kRows,    // a panel of W, which each unpacks for rows of its own
};

inline constexpr int64_t kMostAhead = 2;

struct ProductTiling {
  int64_t tiles = 0;  // tiles of 16 output rows unpacked at once, 1 .. 4; 0: as the kernel likes
  int64_t task_rows = 0;  // rows of X that one task computes: an unpacked panel serves so many
  LoopOrder order = LoopOrder::kPanels;
  // Dense: how many pieces of 512 columns lie between the weights that are computed and those that
  // are fetched meanwhile, 0 .. kMostAhead; 0: none are.
  int64_t ahead = 1;
  bool operator==(const ProductTiling&) const = default;
};

class KernelTuning {
 public:
  void Set(const ProductKey& key, const ProductTiling& tiling) { tilings_[key] = tiling; }
  // Null: nothing was found for this form; the kernel's default is used.
  const ProductTiling* Find(const ProductKey& key) const {
    const auto it = tilings_.find(key);
    return it == tilings_.end() ? nullptr : &it->second;
  }
  // Sets the tiling of a packed matrix whose form is known (Matrix: PackedMatrix, which includes
  // this header).
  template <typename Matrix>
  void Apply(Matrix* m) const {
    const auto& f = m->format();
    if (const ProductTiling* t = Find({f.rows, f.cols, f.bits, static_cast<int>(f.structure)})) {
      m->set_tiling(*t);
    }
  }
  const std::map<ProductKey, ProductTiling>& all() const { return tilings_; }

 private:
  std::map<ProductKey, ProductTiling> tilings_;
};

}  // namespace edgewise::kernels
