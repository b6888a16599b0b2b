// Exits of llama-deep against reference outputs: start states, losses and gradients per window.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>

#include "io/json.h"
#include "testing/golden.h"
#include "testing/paths.h"
#include "tune/edge_method.h"

namespace edgewise::tune {
namespace {

using edgewise::testing::OpenGolden;
using edgewise::testing::ReadGolden;

TEST(EdgeGolden, StatesLossesAndGradientsOfEveryWindow) {
  const std::string dir = edgewise::testing::GoldenDir() + "/models/llama-deep";
  EW_REQUIRE_DIR(dir);
  const auto ctx = ExecContext::Create({.threads = 2});
  auto model = model::Model::Load(dir);
  ASSERT_TRUE(model.ok()) << model.status().message();
  const auto adapter = model::LoadPeftAdapter(dir + "/exits/adapter", (*model)->config());
  ASSERT_TRUE(adapter.ok()) << adapter.status().message();
  const auto golden = OpenGolden(dir + "/exits/golden.safetensors");
  const auto json = ReadJsonFile(dir + "/exits/exits.json");
  const auto ends = (*json)["exits"].get<std::vector<int64_t>>();

  const auto ids = ReadGolden<int64_t>(golden, "input_ids");
  const auto labels = ReadGolden<int64_t>(golden, "labels");
  const auto shape = golden->Find("input_ids")->shape;
  TokenBatch batch;
  std::vector<std::vector<int32_t>> docs;
  int64_t supervised = 0;
  for (int64_t row = 0; row < shape[0]; ++row) {
    auto& doc = docs.emplace_back();
    for (int64_t t = 0; t < shape[1]; ++t) {
      const auto at = static_cast<size_t>(row * shape[1] + t);
      doc.push_back(static_cast<int32_t>(ids[at]));
      batch.ids.push_back(static_cast<int32_t>(ids[at]));
      batch.positions.push_back(static_cast<int32_t>(t));
      batch.first_key.push_back(static_cast<int32_t>(row * shape[1]));
      const bool last = t + 1 == shape[1];
      batch.targets.push_back(last || labels[at + 1] < 0 ? TokenBatch::kNoTarget
                                                         : static_cast<int32_t>(labels[at + 1]));
      supervised += batch.targets.back() >= 0;
    }
  }
  EdgeOptions o;
  o.exits.exits = static_cast<int64_t>(ends.size());
  o.order = ExitOrder::kCyclic;
  o.lora = adapter->lora_config();
  auto m = EdgeMethod::Create(**ctx, **model, o, docs, batch.size(), nullptr, nullptr);
  ASSERT_TRUE(m.ok()) << m.status().message();

  for (int e = 0; e < static_cast<int>(ends.size()); ++e) {
    SCOPED_TRACE(e);
    const Exit exit = (*m)->exits()[static_cast<size_t>(e)];
    ASSERT_EQ(exit.end, ends[static_cast<size_t>(e)]);
    const std::string key = fmt::format("exit.{}.", exit.end);
    // The golden adapter's values for this window.
    auto& mine = const_cast<model::LoraAdapter&>((*m)->adapter(e));
    for (int64_t l = exit.begin; l < exit.end; ++l) {
      for (model::LinearKind kind : model::kAllLinears) {
        const model::LoraSlot *from = adapter->slot(l, kind), *to = mine.slot(l, kind);
        ASSERT_TRUE(from != nullptr && to != nullptr && from->r == to->r);
        std::copy_n(from->a, from->r * from->in, to->a);
        std::copy_n(from->b, from->r * from->out, to->b);
      }
    }
    std::vector<int32_t> active;
    ASSERT_TRUE((*m)->BeginStep(e, &active).ok());
    const auto loss = (*m)->Micro(batch, {e, 0, 0, 1.0 / static_cast<double>(supervised)});
    ASSERT_TRUE(loss.ok()) << loss.status().message();
    // fp32 sums of the reference itself stray by up to 4.4e-7 on the losses and 5.9e-7 on the
    // gradients (tolerances.json); ours are summed in other orders: four times that.
    EXPECT_NEAR(loss->mean(), ReadGolden<double>(golden, key + "loss_f64")[0], 2e-6);
    int compared = 0;
    const std::string prefix = fmt::format("exit.{}.", e);
    for (int32_t i : active) {
      const model::Parameter& p = (*m)->params()[static_cast<size_t>(i)];
      if (p.name.find("lora_") == std::string::npos) continue;
      const auto want = ReadGolden<float>(golden, key + "grad." + p.name.substr(prefix.size()));
      ASSERT_EQ(static_cast<int64_t>(want.size()), p.count);
      for (size_t k = 0; k < want.size(); ++k) {
        ASSERT_NEAR(p.grad[k], want[k], 2.5e-6) << p.name << " " << k;
      }
      ++compared;
    }
    EXPECT_EQ(compared, 14 * exit.end - 14 * exit.begin);
  }
}

}  // namespace
}  // namespace edgewise::tune
