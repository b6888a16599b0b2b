#include "plan/device.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace edgewise::plan {
namespace {

Device Sample() {
  Device d;
  d.name = "a device";
  d.isa = "generic";
  d.simulated = true;
  d.threads = 2;
  d.fp32_gflops = 10;
  d.levels = {{"l1", 32768, 100, 90, 0}, {"ram", 0, 20, 10, 0}, {"disk", 0, 1.5, 1, 4, 0.25}};
  d.kernels = {{KernelKind::kLinearForward, 4, 0.5, true, 512, 64, 32, 12.5}};
  d.cores = {{2, 3.5, 1024}};
  d.memory_limit = 1 << 30;
  d.memory_limit_source = "test";
  return d;
}

TEST(Device, SurvivesJson) {
  const Device d = Sample();
  const Result<Device> back = DeviceFromJson(nlohmann::json::parse(ToJson(d).dump()));
  ASSERT_TRUE(back.ok()) << back.status().message();
  EXPECT_EQ(ToJson(*back).dump(), ToJson(d).dump());
  EXPECT_EQ(back->disk().cached_read_gbps, 4);
  EXPECT_EQ(back->disk().processors, 0.25);
  EXPECT_EQ(back->memory().name, "ram");
  EXPECT_EQ(back->Level("l3"), nullptr);
}

TEST(Device, NamesTheFieldThatIsWrong) {
  const auto message = [](const char* pointer, nlohmann::json value) {
    nlohmann::json j = nlohmann::json::parse(ToJson(Sample()).dump());
    j[nlohmann::json::json_pointer(pointer)] = std::move(value);
    const Result<Device> d = DeviceFromJson(j);
    return d.ok() ? std::string() : d.status().message();
  };
  EXPECT_NE(message("/levels/1/read_gbps", -1).find("levels[1]: read_gbps"), std::string::npos);
  EXPECT_NE(message("/kernels/0/kind", "magic").find("kernels[0]: kind"), std::string::npos);
  EXPECT_NE(message("/kernels/0/sparsity", 1).find("sparsity"), std::string::npos);
  EXPECT_NE(message("/levels", nlohmann::json::array()).find("levels"), std::string::npos);
  EXPECT_NE(message("/threads", "two").find("threads"), std::string::npos);
  EXPECT_NE(message("/kernels", 3).find("kernels"), std::string::npos);
  EXPECT_NE(message("/threads", 5000).find("threads is more than 4096"), std::string::npos);
  EXPECT_NE(message("/cores/0/count", 1e9).find("count"), std::string::npos);
  EXPECT_NE(message("/kernels/0/bits", 65).find("kernels[0]: bits"), std::string::npos);
  EXPECT_NE(message("/kernels/0/gops", 1e-300).find("kernels[0]: gops"), std::string::npos);
  EXPECT_NE(message("/levels/0/read_gbps", 1e300).find("levels[0]: read_gbps"), std::string::npos);
  const nlohmann::json kernel = ToJson(Sample())["kernels"][0];
  EXPECT_NE(message("/kernels", nlohmann::json(100000, kernel)).find("kernels has more than 8192"),
            std::string::npos);
  EXPECT_FALSE(DeviceFromJson(nlohmann::json::parse("[1]")).ok());
}

}  // namespace
}  // namespace edgewise::plan
