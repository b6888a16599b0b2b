// edgewise random-base --shape NAME -o DIR: a compressed base with random weights, for measurements
// of speed and memory on shapes whose real weights are not at hand.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "base/aligned_buffer.h"
#include "base/rng.h"
#include "base/units.h"
#include "cli/commands.h"
#include "formats/hf_dir.h"
#include "io/env.h"
#include "kernels/packed/packed_matrix.h"
#include "model/save_packed.h"
#include "model/weight_table.h"

namespace edgewise::cli {
namespace {

constexpr int64_t kMaxTokenizerBytes = int64_t{256} << 20;
constexpr int64_t kPatternRows = 64;

class RandomBase : public Command {
 public:
  std::string name() const override { return "random-base"; }
  std::string summary() const override { return "Write a compressed base with random weights"; }

  void Declare(CLI::App& app) override {
    std::string shapes;
    for (const std::string& shape : model::NamedShapes()) shapes += " " + shape;
    app.add_option("--shape", shape_, "One of:" + shapes);
    app.add_option("--bits", bits_, "Of the linears")
        ->check(CLI::IsMember({2, 3, 4, 5, 6, 8}))
        ->capture_default_str();
    app.add_option("--sparsity", sparsity_, "Share of zero weights")
        ->check(CLI::Range(0.0, 0.95))
        ->capture_default_str();
    app.add_flag("--block", block_, "Zeros in blocks of 16 x 64");
    app.add_option("--head-bits", head_bits_, "Of embedding and head")
        ->check(CLI::IsMember({4, 8}))
        ->capture_default_str();
    app.add_option("--group", group_, "Columns per scale of dense packed linears")
        ->check(CLI::IsMember({0, 32, 64, 128}))
        ->capture_default_str();
    app.add_option("--tokenizer", tokenizer_, "Model whose tokenizer is copied");
    app.add_option("--seed", seed_, "Of the weights")->capture_default_str();
    app.add_option("-o,--output", out_, "Directory to write");
  }

  Status Run(Invocation& inv) override {
    if (shape_.empty() || out_.empty())
      return InvalidArgument("name a --shape and a directory (-o)");
    Result<model::ModelConfig> config = model::NamedShape(shape_);
    if (!config.ok()) return InvalidArgument("--shape: " + config.status().message());
    std::map<std::string, std::string> files;
    if (!tokenizer_.empty()) {
      EW_ASSIGN(const formats::ModelLocation from, formats::ResolveModel(tokenizer_));
      for (const char* file : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                               "chat_template.jinja", "generation_config.json"}) {
        const std::string path = JoinPath(from.path, file);
        if (!PosixEnv().Exists(path)) continue;
        EW_ASSIGN(files[file], PosixEnv().ReadFile(path, kMaxTokenizerBytes));
      }
    }
    EW_ASSIGN(auto model, Make(*config, inv));
    EW_RETURN_IF_ERROR(model::SavePackedBase(PosixEnv(), *model, files, out_));
    OrderedJson json;
    json["shape"] = shape_;
    json["bytes"] = model->weight_bytes();
    json["parameters"] = config->parameter_count();
    json["directory"] = out_;
    inv.console().SetResult(std::move(json));
    return Status::Ok();
  }

 private:
  // Standard deviation about 0.02. Rows of linears repeat after kPatternRows, which changes neither
  // speed nor size. Those of embedding and head do not: with words alike none could be improbable
  // (kernels::HeadLossArgs::skip_below) once a word like it is learned.
  Result<std::unique_ptr<model::Model>> Make(const model::ModelConfig& config, Invocation& inv) {
    model::ModelWeights weights;
    weights.layers.resize(config.layers.size());
    std::vector<std::shared_ptr<const void>> owners;
    uint64_t index = 0;
    for (const model::WeightId& id : model::ListWeights(config)) {
      if (inv.stop().load()) return Status(StatusCode::kInterrupted, "stopped");
      const std::vector<int64_t> shape = model::ShapeOf(config, id);
      if (!id.is_matrix()) {
        const float value = id.is_norm() && !config.norm_plus_one ? 1.0f : 0.0f;
        auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(shape[0]), value);
        model::VectorOf(weights, id) = values->data();
        owners.push_back(values);
        continue;
      }
      EW_ASSIGN(auto packed,
                Matrix(shape[0], shape[1], id.role == model::WeightRole::kLinear, ++index));
      model::MatrixOf(weights, id) = packed->Ref();
      owners.push_back(std::move(packed));
      if (id.role == model::WeightRole::kLinear && id.kind == model::LinearKind::kDown) {
        inv.console().Log(fmt::format("layer {} of {}", id.layer + 1, config.num_layers()));
      }
    }
    return model::Model::FromWeights(config, std::move(weights), std::move(owners));
  }

  Result<std::shared_ptr<const kernels::PackedMatrix>> Matrix(int64_t rows, int64_t cols,
                                                              bool linear, uint64_t index) const {
    kernels::PackedFormat f;
    f.rows = rows;
    f.cols = cols;
    f.bits = linear ? bits_ : head_bits_;
    const bool sparse = linear && sparsity_ > 0;
    f.group = f.bits == 8 || sparse ? 0 : linear ? group_ : 128;
    if (sparse) {
      f.structure = block_ ? kernels::Structure::kBlock : kernels::Structure::kUnstructured;
      if (block_) f.block_cols = 64;
    }
    FloatBuffer w(rows * cols);
    Rng rng(seed_, RngStream::kInit, index);
    const int64_t drawn = linear ? std::min(rows, kPatternRows) : rows;
    for (int64_t i = 0; i < drawn * cols; ++i) w[i] = (rng.NextFloat() - 0.5f) * 0.0693f;
    for (int64_t r = 0; sparse && r < drawn; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        // The same for a block, or for every weight its own.
        const Rng draw(seed_ + 1, RngStream::kInit, index);
        const uint64_t at = block_ ? static_cast<uint64_t>(r / 16 * cols + c / 64)
                                   : static_cast<uint64_t>(r * cols + c);
        if (static_cast<double>(draw.Block(at)[0]) * 0x1.0p-32 < sparsity_) w[r * cols + c] = 0;
      }
    }
    for (int64_t r = drawn; r < rows; ++r) {
      std::copy_n(w.data() + (r % drawn) * cols, cols, w.data() + r * cols);
    }
    EW_ASSIGN(auto packed, kernels::Pack(f, w.data(), cols));
    return std::make_shared<const kernels::PackedMatrix>(std::move(packed));
  }

  std::string shape_, tokenizer_, out_;
  int bits_ = 4, head_bits_ = 8, group_ = 128;
  double sparsity_ = 0;
  bool block_ = false;
  uint64_t seed_ = 1;
};

}  // namespace

std::unique_ptr<Command> MakeRandomBase() { return std::make_unique<RandomBase>(); }

}  // namespace edgewise::cli
