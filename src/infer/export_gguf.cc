#include "infer/export_gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "formats/gguf_writer.h"
#include "formats/hf_dir.h"
#include "infer/export_memory.h"
#include "infer/logit_error.h"
#include "infer/merge.h"
#include "infer/tuned_model.h"
#include "io/env.h"
#include "io/json.h"
#include "model/rope.h"
#include "model/weight_table.h"
#include "text/chat_template.h"
#include "text/gguf_import.h"

namespace edgewise::infer {
namespace {

using formats::GgmlType;
using formats::GgufWriter;
using model::LinearKind;
using model::WeightRole;

constexpr int64_t kMaxTextBytes = int64_t{256} << 20;
constexpr std::pair<std::string_view, GgmlType> kTypes[] = {{"f32", GgmlType::kF32},
                                                            {"f16", GgmlType::kF16},
                                                            {"bf16", GgmlType::kBF16},
                                                            {"q8_0", GgmlType::kQ8_0},
                                                            {"q4_0", GgmlType::kQ4_0}};

// general.file_type, which programs show.
uint32_t FileType(GgmlType type) {
  switch (type) {
    case GgmlType::kF16:
      return 1;
    case GgmlType::kQ4_0:
      return 2;
    case GgmlType::kQ8_0:
      return 7;
    case GgmlType::kBF16:
      return 32;
    default:
      return 0;
  }
}

Result<std::string> ReadText(const std::string& directory, const char* name) {
  const std::string path = JoinPath(directory, name);
  if (!PosixEnv().Exists(path)) return std::string();
  return PosixEnv().ReadFile(path, kMaxTextBytes);
}

// The plain template of the model; "" when there is none.
Result<std::string> ChatTemplateText(const std::string& directory) {
  EW_ASSIGN(const text::ChatTemplateFiles files, text::ReadChatTemplateFiles(directory));
  if (!files.chat_template_jinja.empty()) return files.chat_template_jinja;
  const Json config = Json::parse(files.tokenizer_config_json, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object() || !config.contains("chat_template")) return std::string();
  const Json& chat = config["chat_template"];
  return chat.is_string() ? chat.get<std::string>() : std::string();
}

Status DescribeRope(const model::ModelConfig& c, const std::string& arch, GgufWriter& w) {
  const model::RopeConfig& rope = c.ropes[0];
  EW_RETURN_IF_ERROR(w.SetF32(arch + ".rope.freq_base", static_cast<float>(rope.theta)));
  EW_RETURN_IF_ERROR(w.SetU32(arch + ".rope.dimension_count", static_cast<uint32_t>(c.head_dim)));
  if (rope.type == model::RopeType::kLinear) {
    EW_RETURN_IF_ERROR(w.SetString(arch + ".rope.scaling.type", "linear"));
    return w.SetF32(arch + ".rope.scaling.factor", static_cast<float>(rope.factor));
  }
  if (rope.type == model::RopeType::kDefault && rope.divisors.empty()) return Status::Ok();
  // Any other scaling of the frequencies as what each is divided by.
  const std::vector<double> scaled = model::RopeFrequencies(rope, c.head_dim);
  model::RopeConfig unscaled;
  unscaled.theta = rope.theta;
  const std::vector<double> plain = model::RopeFrequencies(unscaled, c.head_dim);
  auto divisors = std::make_shared<std::vector<float>>();
  for (size_t i = 0; i < scaled.size(); ++i) {
    divisors->push_back(static_cast<float>(plain[i] / scaled[i]));
  }
  return w.AddTensor("rope_freqs.weight", GgmlType::kF32, {static_cast<int64_t>(divisors->size())},
                     [divisors](const formats::ByteSink& sink) {
                       return sink(std::as_bytes(std::span(*divisors)));
                     });
}

Status Describe(const model::ModelConfig& c, GgmlType type, const std::string& name,
                GgufWriter& w) {
  const std::string& arch = c.model_type;
  if (arch != "llama" && arch != "qwen2" && arch != "qwen3") {
    return Unsupported(fmt::format(
        "GGUF files are written of llama, qwen2 and qwen3; this model is '{}': use --to hf", arch));
  }
  const auto number = [&](const char* key, int64_t value) {
    return w.SetU32(fmt::format("{}.{}", arch, key), static_cast<uint32_t>(value));
  };
  EW_RETURN_IF_ERROR(w.SetString("general.architecture", arch));
  EW_RETURN_IF_ERROR(w.SetString("general.name", name));
  EW_RETURN_IF_ERROR(w.SetU32("general.file_type", FileType(type)));
  EW_RETURN_IF_ERROR(w.SetU32("general.quantization_version", 2));
  EW_RETURN_IF_ERROR(number("context_length", c.max_positions));
  EW_RETURN_IF_ERROR(number("embedding_length", c.hidden));
  EW_RETURN_IF_ERROR(number("feed_forward_length", c.ffn));
  EW_RETURN_IF_ERROR(number("block_count", c.num_layers()));
  EW_RETURN_IF_ERROR(number("attention.head_count", c.heads));
  EW_RETURN_IF_ERROR(number("attention.head_count_kv", c.kv_heads));
  EW_RETURN_IF_ERROR(number("attention.key_length", c.head_dim));
  EW_RETURN_IF_ERROR(number("attention.value_length", c.head_dim));
  EW_RETURN_IF_ERROR(number("vocab_size", c.vocab));
  EW_RETURN_IF_ERROR(
      w.SetF32(arch + ".attention.layer_norm_rms_epsilon", static_cast<float>(c.norm_eps)));
  return DescribeRope(c, arch, w);
}

Status DescribeVocab(const text::GgufVocab& v, const std::string& chat_template, GgufWriter& w) {
  EW_RETURN_IF_ERROR(w.SetString("tokenizer.ggml.model", v.model));
  EW_RETURN_IF_ERROR(w.SetString("tokenizer.ggml.pre", v.pre));
  EW_RETURN_IF_ERROR(w.SetStrings("tokenizer.ggml.tokens", v.tokens));
  if (!v.scores.empty()) EW_RETURN_IF_ERROR(w.SetF32s("tokenizer.ggml.scores", v.scores));
  EW_RETURN_IF_ERROR(w.SetI32s("tokenizer.ggml.token_type", v.token_types));
  if (!v.merges.empty()) EW_RETURN_IF_ERROR(w.SetStrings("tokenizer.ggml.merges", v.merges));
  const std::pair<const char*, std::optional<uint32_t>> ids[] = {
      {"tokenizer.ggml.bos_token_id", v.bos_id},
      {"tokenizer.ggml.eos_token_id", v.eos_id},
      {"tokenizer.ggml.unknown_token_id", v.unk_id},
      {"tokenizer.ggml.padding_token_id", v.pad_id}};
  for (const auto& [key, id] : ids) {
    if (id) EW_RETURN_IF_ERROR(w.SetU32(key, *id));
  }
  const std::pair<const char*, std::optional<bool>> flags[] = {
      {"tokenizer.ggml.add_bos_token", v.add_bos},
      {"tokenizer.ggml.add_eos_token", v.add_eos},
      {"tokenizer.ggml.add_space_prefix", v.add_space_prefix}};
  for (const auto& [key, flag] : flags) {
    if (flag) EW_RETURN_IF_ERROR(w.SetBool(key, *flag));
  }
  if (chat_template.empty()) return Status::Ok();
  return w.SetString("tokenizer.chat_template", chat_template);
}

// Vocabulary and chat template of a Hugging Face directory.
Status DescribeText(const std::string& directory, int64_t words, GgufWriter& w) {
  EW_ASSIGN(const std::string tokenizer, ReadText(directory, "tokenizer.json"));
  EW_ASSIGN(const std::string tokenizer_config, ReadText(directory, "tokenizer_config.json"));
  EW_ASSIGN(
      const text::GgufVocab vocab,
      text::GgufVocabFromTokenizerJson(tokenizer, tokenizer_config, words).WithContext(directory));
  EW_ASSIGN(const std::string chat_template, ChatTemplateText(directory));
  return DescribeVocab(vocab, chat_template, w);
}

GgmlType TypeOf(const model::WeightId& id, GgmlType wanted, int64_t row) {
  if (!id.is_matrix()) return GgmlType::kF32;
  const bool wide = id.role == WeightRole::kEmbedding || id.role == WeightRole::kHead;
  const GgmlType type = wide && wanted == GgmlType::kQ4_0 ? GgmlType::kQ8_0 : wanted;
  return row % formats::InfoOf(type).block_elements == 0 ? type : GgmlType::kF16;
}

// Whether llama.cpp has the weight in an order of its own.
bool IsRotated(const model::ModelConfig& c, const model::WeightId& id) {
  const bool projection = id.role == WeightRole::kLinear || id.role == WeightRole::kBias;
  return c.model_type == "llama" && projection &&
         (id.kind == LinearKind::kQ || id.kind == LinearKind::kK);
}

// Rows of q and k, whole heads of them, in llama.cpp's order of the rotary embedding: pairs
// (2i, 2i + 1) instead of halves (i, i + D/2). Biases: rows of one number.
void Interleave(const float* from, int64_t rows, int64_t cols, int64_t head_dim, float* to) {
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t d = row % head_dim;
    const int64_t half = row - d + d % 2 * (head_dim / 2) + d / 2;
    std::copy_n(from + half * cols, cols, to + row * cols);
  }
}

// Some rows at a time, so that a large matrix is never there as a whole.
Status Produce(const TunedModel& model, const model::WeightId& id, GgmlType type,
               const formats::ByteSink& sink) {
  const model::ModelConfig& c = model.config();
  const std::vector<int64_t> shape = model::ShapeOf(c, id);
  const bool rotated = IsRotated(c, id);
  const int64_t rows = id.is_matrix() ? shape[0] : 1, cols = shape.back();
  int64_t step = std::max<int64_t>(1, (int64_t{1} << 18) / cols);
  if (rotated) step = std::max(step / c.head_dim, int64_t{1}) * c.head_dim;
  step = std::min(step, rows);
  const formats::GgmlTypeInfo& info = formats::InfoOf(type);
  FloatBuffer values(step * cols), ordered(rotated ? values.size() : 0);
  std::vector<std::byte> blocks(
      static_cast<size_t>(values.size() / info.block_elements * info.block_bytes));
  for (int64_t row = 0; row < rows; row += step) {
    const int64_t n = std::min(step, rows - row);
    model.Rows(id, row, n, values.data());
    const bool matrix = id.is_matrix();
    if (rotated) {
      Interleave(values.data(), matrix ? n : cols, matrix ? cols : 1, c.head_dim, ordered.data());
    }
    const std::span<const float> part((rotated ? ordered : values).data(),
                                      static_cast<size_t>(n * cols));
    const std::span<std::byte> out = std::span(blocks).first(
        static_cast<size_t>(n * cols / info.block_elements * info.block_bytes));
    EW_RETURN_IF_ERROR(formats::QuantizeGgml(type, part, out));
    EW_RETURN_IF_ERROR(sink(out));
  }
  return Status::Ok();
}

Status AddWeights(const TunedModel& model, GgmlType type, GgufWriter& w, GgufReport* report) {
  for (const model::WeightId& id : model::ListWeights(model.config())) {
    const std::vector<int64_t> shape = model::ShapeOf(model.config(), id);
    const GgmlType as = TypeOf(id, type, shape.back());
    EW_RETURN_IF_ERROR(w.AddTensor(
        model::GgufName(id), as, shape,
        [&model, id, as](const formats::ByteSink& sink) { return Produce(model, id, as, sink); }));
    ++report->tensors;
  }
  return Status::Ok();
}

// Of the file as it is read back.
ProbeBytes FileBytes(const model::ModelConfig& c, GgmlType wanted) {
  return ProbeBytesOf(c, [&](const model::WeightId& id) -> WrittenMatrix {
    const std::vector<int64_t> shape = model::ShapeOf(c, id);
    const GgmlType type = TypeOf(id, wanted, shape.back());
    const formats::GgmlTypeInfo& info = formats::InfoOf(type);
    int64_t bytes = shape[0] * shape[1] / info.block_elements * info.block_bytes;
    // Beside the mapped rows of q and k a copy in their own order.
    if (info.dtype && IsRotated(c, id)) bytes *= 2;
    return {bytes, !info.dtype};
  });
}

}  // namespace

Result<GgmlType> ParseGgufType(std::string_view name) {
  for (const auto& [known, type] : kTypes) {
    if (known == name) return type;
  }
  return InvalidArgument(
      fmt::format("'{}' is not a type of GGUF files: f32, f16, bf16, q8_0 and q4_0 are", name));
}

Result<GgufReport> ExportGguf(ExecContext& ctx, const formats::ModelLocation& base,
                              const std::string& tuned, GgmlType type, const std::string& out,
                              const GgufOptions& options) {
  Env& env = PosixEnv();
  if (env.Exists(out) && !options.overwrite) {
    return InvalidArgument(out + " exists already; choose another file or --overwrite");
  }
  if (base.kind != formats::ModelLocation::Kind::kHfDirectory) {
    return Unsupported(base.path + " is a GGUF file: its vocabulary is wanted as a directory's");
  }
  EW_ASSIGN(const auto model, TunedModel::Open(base, tuned, options.exit));
  const model::ModelConfig& config = model->config();
  const std::string& directory = base.path;
  GgufWriter writer;
  GgufReport report;
  std::string name = out.substr(out.rfind('/') + 1);
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  EW_RETURN_IF_ERROR(Describe(config, type, name, writer).WithContext(directory));
  EW_RETURN_IF_ERROR(DescribeText(directory, config.vocab, writer));
  EW_RETURN_IF_ERROR(AddWeights(*model, type, writer, &report));
  report.bytes = writer.FileBytes();

  const ProbedModel want = model->probed();
  // The header, twice when it is written, and the vocabulary in it as it is read back.
  const int64_t work =
      std::max(WritingBytes() + 2 * writer.HeaderBytes(),
               2 * writer.HeaderBytes() + LogitErrorBytes(ctx, model->base(), want,
                                                          ProbeBytesOf(model->base()),
                                                          FileBytes(config, type)));
  EW_ASSIGN(report.predicted_peak_bytes,
            FitExport(options.memory_bytes, work,
                      "one layer is in memory at a time, which a smaller --gguf-type may make "
                      "smaller"));

  const std::string temporary = out + ".writing.gguf";
  EW_RETURN_IF_ERROR(writer.Write(env, temporary));
  const Result<double> error = LogitError(ctx, want, {temporary});
  const auto dtype = formats::InfoOf(type).dtype;
  report.max_error = dtype ? DefaultMergeError(*dtype) : 0;
  report.error = error.ok() ? *error : 0;
  Status status = error.ok() ? Status::Ok() : error.status();
  if (status.ok() && dtype && report.error > report.max_error) {
    status = BadInput(fmt::format(
        "{}: the file's logits differ from the model's by {:.2e} of their size, more than {:.2e}",
        out, report.error, report.max_error));
  }
  if (!status.ok()) {
    (void)env.RemoveAll(temporary);
    return status;
  }
  EW_RETURN_IF_ERROR(env.Rename(temporary, out));
  return report;
}

}  // namespace edgewise::infer
