#include "tune/cut_batch.h"

#include <gtest/gtest.h>

#include "testing/tiny_models.h"

namespace edgewise::tune {
namespace {

TEST(CutBatch, KeepsDocumentsWholeAndInOrder) {
  const TokenBatch batch = testing::RandomDocuments({5, 9, 3, 30, 1, 1, 12}, 100);
  for (int64_t tokens = 1; tokens <= 70; ++tokens) {
    const std::vector<TokenBatch> parts = CutBatch(batch, tokens);
    int64_t at = 0;
    for (size_t p = 0; p < parts.size(); ++p) {
      const TokenBatch& part = parts[p];
      ASSERT_GT(part.size(), 0);
      int64_t documents = 0, first = part.size();
      for (int64_t t = 0; t < part.size(); ++t, ++at) {
        const auto i = static_cast<size_t>(t), from = static_cast<size_t>(at);
        EXPECT_EQ(part.ids[i], batch.ids[from]);
        EXPECT_EQ(part.targets[i], batch.targets[from]);
        EXPECT_EQ(part.positions[i], batch.positions[from]);
        EXPECT_EQ(part.first_key[i], batch.first_key[from] - (at - t));
        if (part.first_key[i] != t) continue;
        if (++documents == 2) first = t;
      }
      EXPECT_EQ(part.first_key[0], 0);
      EXPECT_TRUE(part.size() <= tokens || documents == 1);
      // As few as there can be: the part before has no room for the first document.
      if (p > 0) {
        EXPECT_GT(parts[p - 1].size() + first, tokens);
      }
    }
    EXPECT_EQ(at, batch.size());
  }
  EXPECT_EQ(CutBatch(batch, 0).size(), 1u);
  EXPECT_EQ(CutBatch(batch, batch.size()).size(), 1u);
  EXPECT_EQ(CutBatch(batch, 1).size(), 7u);
}

}  // namespace
}  // namespace edgewise::tune
