// Against float64 references of SparseGPT, GPTQ, Wanda, magnitude and RTN: same masks, same codes,
// values to 1e-9.
#include "compress/second_order.h"

#include <gtest/gtest.h>

#include "compress/prune.h"
#include "compress/rtn.h"
#include "io/json.h"
#include "testing/golden.h"
#include "testing/paths.h"

namespace edgewise::compress {
namespace {

using edgewise::testing::GoldenFile;
using edgewise::testing::OpenGolden;
using edgewise::testing::ReadGolden;

template <typename T>
void ExpectClose(const std::vector<T>& got, const std::vector<T>& want, const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i)
    worst = std::max<double>(worst, std::abs(got[i] - want[i]));
  EXPECT_LE(worst, 1e-9) << what;
}

class Problem {
 public:
  Problem(const std::string& dir, const Json& json)
      : in_(OpenGolden(dir + "/" + json["input"].get<std::string>())),
        want_(OpenGolden(dir + "/" + json["expected"].get<std::string>())),
        rows_(json["rows"]),
        cols_(json["cols"]) {
    const auto w = ReadGolden<float>(in_, "W"), x = ReadGolden<float>(in_, "X");
    w_.assign(w.begin(), w.end());
    h_ = ReadGolden<double>(in_, "H");
    norm_.assign(static_cast<size_t>(cols_), 0.0);
    for (size_t i = 0; i < x.size(); ++i) {
      norm_[i % static_cast<size_t>(cols_)] += static_cast<double>(x[i]) * x[i];
    }
    for (double& n : norm_) n = std::sqrt(n);
  }

  void Check(const Json& r) {
    const std::string key = r["key"], method = r["method"];
    SCOPED_TRACE(key);
    const auto keep = [&] { return ReadGolden<uint8_t>(want_, key + ".keep"); };
    if (method == "sparsegpt" || method == "gptq") {
      CheckSecondOrder(key, r);
    } else if (method == "wanda") {
      const NmPattern nm{r.value("prune_n", 0), r.value("prune_m", 0)};
      EXPECT_EQ(WandaMask(w_.data(), norm_.data(), rows_, cols_, r.value("sparsity", 0.0), nm),
                keep());
    } else if (method == "magnitude") {
      const auto scope = r["scope"] == "row" ? PruneScope::kRow : PruneScope::kMatrix;
      EXPECT_EQ(MagnitudeMask(w_.data(), rows_, cols_, r["sparsity"], scope), keep());
    } else if (method == "rtn") {
      const auto q = RoundToNearest(w_.data(), rows_, cols_, Grid{r["bits"]}, r["group"]);
      EXPECT_EQ(q.codes, ReadGolden<int8_t>(want_, key + ".codes"));
      ExpectClose(q.scales, ReadGolden<double>(want_, key + ".scales"), "scales");
    } else {
      ADD_FAILURE() << "unknown method " << method;
    }
  }

 private:
  void CheckSecondOrder(const std::string& key, const Json& r) {
    ObsOptions o;
    o.hessian.percdamp = r["percdamp"];
    o.block = r["block"];
    o.quantize = r.contains("bits");
    if (o.quantize) o.grid = {r["bits"], r["grid"] == "wide" ? GridKind::kWide : GridKind::kSym};
    if (r["method"] == "sparsegpt") {
      o.nm = {r["prune_n"], r["prune_m"]};
      o.pattern = o.nm.n > 0 ? SparsePattern::kNm : SparsePattern::kUnstructured;
      o.sparsity = r["sparsity"];
    } else {
      o.group = r["group"];
      o.act_order = r["act_order"];
      o.static_groups = r["static_groups"];
    }
    const auto got = CompressSecondOrder(w_.data(), h_.data(), rows_, cols_, o);
    ASSERT_TRUE(got.ok()) << got.status().message();
    if (want_->Find(key + ".keep") != nullptr) {
      EXPECT_EQ(got->keep, ReadGolden<uint8_t>(want_, key + ".keep"));
    }
    if (want_->Find(key + ".W") != nullptr) {
      ExpectClose(got->w, ReadGolden<double>(want_, key + ".W"), "W");
    }
    if (o.quantize) {
      EXPECT_EQ(got->codes, ReadGolden<int8_t>(want_, key + ".codes"));
      ExpectClose(got->scales, ReadGolden<double>(want_, key + ".scales"), "scales");
    }
    if (want_->Find(key + ".g_idx") != nullptr) {
      EXPECT_EQ(got->g_idx, ReadGolden<int32_t>(want_, key + ".g_idx"));
    }
    if (want_->Find(key + ".perm") != nullptr) {
      const auto perm = ReadGolden<int32_t>(want_, key + ".perm");
      EXPECT_TRUE(std::equal(perm.begin(), perm.end(), got->perm.begin(), got->perm.end()));
    }
  }

  GoldenFile in_, want_;
  int64_t rows_, cols_;
  std::vector<double> w_, h_, norm_;
};

TEST(SecondOrderGolden, EveryResult) {
  const std::string dir = edgewise::testing::GoldenDir() + "/compress";
  EW_REQUIRE_DIR(dir);
  const auto index = ReadJsonFile(dir + "/index.json");
  ASSERT_TRUE(index.ok()) << index.status().message();
  int results = 0;
  for (const Json& json : (*index)["problems"]) {
    SCOPED_TRACE(json["name"].get<std::string>());
    Problem problem(dir, json);
    for (const Json& r : json["results"]) {
      problem.Check(r);
      ++results;
    }
  }
  EXPECT_GT(results, 0);
  RecordProperty("results", results);
}

}  // namespace
}  // namespace edgewise::compress
