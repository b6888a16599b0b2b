// AVX-512 with VNNI but without VBMI2 has a table of its own, which a processor that has both never
// chooses: here it is run beside the other.
#if defined(__x86_64__)
#include <gtest/gtest.h>

#include "kernels/packed/random_packed.h"
#include "kernels/packed/row_forward.h"

namespace edgewise::kernels {
namespace packed_avx512vnni {
extern const Int8Table kTable;
}
namespace {

class TablePair : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!IsaSupported(Isa::kAvx512Vnni)) GTEST_SKIP() << "needs AVX-512 with VNNI";
    ExecOptions options;
    const Isa isa = Isa::kAvx512Vnni;
    options.threads = 1;
    options.isa = &isa;
    ctx_ = std::move(ExecContext::Create(options)).value();
  }
  // One row times W with the functions of `table`.
  std::vector<float> Row(const PackedMatrix& w, const Int8Table& table,
                         const std::vector<float>& x) {
    const QuantizePlan plan = QuantizePlan::Make(1, w.cols(), w.format().act_group, 256);
    const int64_t most = RowSegments::Most(plan.stride, 16);
    AlignedBuffer memory(static_cast<size_t>(plan.bytes + RowSegments::Bytes(most)));
    const QuantizedRows rows =
        QuantizeRows(*ctx_, plan, x.data(), w.cols(), nullptr, {}, memory.data());
    std::vector<float> y(static_cast<size_t>(w.rows()));
    const Call call{w,
                    table,
                    TileReader(w, table),
                    rows,
                    std::min<int64_t>(w.format().group, plan.group),
                    plan.group,
                    nullptr,
                    y.data(),
                    w.rows(),
                    {0, w.rows()},
                    false};
    RowSegments segments = RowSegments::At(memory.as<uint8_t>() + plan.bytes, most);
    segments.Add(call, 0, w.cols(), 0);
    RowForward one(*ctx_, 0, call, 1, segments);
    for (int64_t tile = 0; tile < w.layout().tiles; ++tile) one.Tile(tile);
    return y;
  }
  std::unique_ptr<ExecContext> ctx_;
};

TEST_F(TablePair, UnstructuredCodesAndProductsAreTheSame) {
  const Int8Table& plain = packed_avx512vnni::kTable;
  const Int8Table& chosen = Int8TableFor(Isa::kAvx512Vnni);
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    PackedFormat f;
    f.rows = 48;
    f.cols = 608;
    f.bits = bits;
    f.group = 32;
    f.act_group = 128;
    f.structure = Structure::kUnstructured;
    const Result<PackedMatrix> w = RandomPackedMatrix(f, static_cast<uint64_t>(bits), 0.4);
    ASSERT_TRUE(w.ok()) << w.status().message();
    for (int64_t tile = 0; tile < w->layout().tiles; ++tile) {
      SparseCursor at[2];
      std::vector<uint8_t> codes[2];
      for (int i = 0; i < 2; ++i) {
        codes[i].resize(static_cast<size_t>(kChunkUnits * kUnitElements));
        TileReader(*w, i == 0 ? plain : chosen).Read(tile, 0, kChunkUnits, &at[i], codes[i].data());
      }
      EXPECT_EQ(codes[0], codes[1]) << bits << " bits, tile " << tile;
    }
    std::vector<float> x(static_cast<size_t>(f.cols));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 37) - 17.5f;
    EXPECT_EQ(Row(*w, plain, x), Row(*w, chosen, x)) << bits << " bits";
  }
}

}  // namespace
}  // namespace edgewise::kernels
#endif
