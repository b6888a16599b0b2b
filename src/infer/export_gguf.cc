#include "infer/export_gguf.h"

#include <fmt/format.h>

#include <cstring>
#include <memory>

#include "formats/gguf_writer.h"
#include "formats/hf_dir.h"
#include "infer/logit_error.h"
#include "infer/merge.h"
#include "io/env.h"
#include "io/json.h"
#include "model/decoder.h"
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

// Rows of q and k in llama.cpp's order of the rotary embedding: pairs (2i, 2i + 1) instead of
// halves (i, i + D/2).
HostTensor Interleaved(const HostTensor& source, int64_t head_dim) {
  const TensorView& in = source.view;
  const int64_t rows = in.shape[0];
  const auto row_bytes = static_cast<size_t>(in.bytes() / std::max<int64_t>(rows, 1));
  auto buffer = std::make_shared<AlignedBuffer>(static_cast<size_t>(in.bytes()));
  const auto* from = static_cast<const char*>(in.data);
  auto* to = buffer->as<char>();
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t d = row % head_dim;
    const int64_t half = row - d + d % 2 * (head_dim / 2) + d / 2;
    std::memcpy(to + static_cast<size_t>(row) * row_bytes,
                from + static_cast<size_t>(half) * row_bytes, row_bytes);
  }
  HostTensor out;
  out.view = {in.dtype, in.shape, buffer->data()};
  out.owner = std::move(buffer);
  return out;
}

GgmlType TypeOf(const model::WeightId& id, GgmlType wanted, int64_t row) {
  if (!id.is_matrix()) return GgmlType::kF32;
  const bool wide = id.role == WeightRole::kEmbedding || id.role == WeightRole::kHead;
  const GgmlType type = wide && wanted == GgmlType::kQ4_0 ? GgmlType::kQ8_0 : wanted;
  return row % formats::InfoOf(type).block_elements == 0 ? type : GgmlType::kF16;
}

Status AddWeights(const model::ModelConfig& c, const formats::TensorSource& source, GgmlType type,
                  GgufWriter& w, GgufReport* report) {
  for (const model::WeightId& id : model::ListWeights(c)) {
    EW_ASSIGN(HostTensor tensor, source.Get(model::HfName(c, id)));
    const bool projection = id.role == WeightRole::kLinear || id.role == WeightRole::kBias;
    const bool rotated = projection && (id.kind == LinearKind::kQ || id.kind == LinearKind::kK);
    if (rotated && c.model_type == "llama") tensor = Interleaved(tensor, c.head_dim);
    const GgmlType as = TypeOf(id, type, tensor.view.shape.back());
    EW_RETURN_IF_ERROR(w.AddTensor(model::GgufName(id), as, std::move(tensor)));
    ++report->tensors;
  }
  return Status::Ok();
}

Result<double> FileError(ExecContext& ctx, const std::string& directory, const std::string& file) {
  // Both in floats: rounding of activations is not the file's doing.
  const model::LoadOptions floats{.storage = model::StorageDType::kF32};
  EW_ASSIGN(const auto want, model::Model::Load(directory, floats));
  EW_ASSIGN(const auto got, model::Model::Load(file, floats));
  model::DecoderOptions options;
  options.max_context = std::min(kProbeTokens, want->config().max_positions);
  EW_ASSIGN(auto left, model::Decoder::Create(ctx, *want, options));
  EW_ASSIGN(auto right, model::Decoder::Create(ctx, *got, options));
  return LogitError(
      want->config().vocab, options.max_context, [&](int32_t t) { return left->Step(t); },
      [&](int32_t t) { return right->Step(t); });
}

}  // namespace

Result<GgmlType> ParseGgufType(std::string_view name) {
  for (const auto& [known, type] : kTypes) {
    if (known == name) return type;
  }
  return InvalidArgument(
      fmt::format("'{}' is not a type of GGUF files: f32, f16, bf16, q8_0 and q4_0 are", name));
}

Result<GgufReport> ExportGguf(ExecContext& ctx, const std::string& directory, GgmlType type,
                              const std::string& out, bool overwrite) {
  Env& env = PosixEnv();
  if (env.Exists(out) && !overwrite) {
    return InvalidArgument(out + " exists already; choose another file or --overwrite");
  }
  model::ModelConfig config;
  {
    EW_ASSIGN(const auto model, model::Model::Load(directory));
    config = model->config();
  }
  EW_ASSIGN(const std::string tokenizer, ReadText(directory, "tokenizer.json"));
  EW_ASSIGN(const std::string tokenizer_config, ReadText(directory, "tokenizer_config.json"));
  EW_ASSIGN(const text::GgufVocab vocab,
            text::GgufVocabFromTokenizerJson(tokenizer, tokenizer_config, config.vocab)
                .WithContext(directory));
  EW_ASSIGN(const std::string chat_template, ChatTemplateText(directory));
  EW_ASSIGN(const auto tensors, formats::ShardedTensors::Open(directory));
  GgufWriter writer;
  GgufReport report;
  std::string name = out.substr(out.rfind('/') + 1);
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  EW_RETURN_IF_ERROR(Describe(config, type, name, writer).WithContext(directory));
  EW_RETURN_IF_ERROR(DescribeVocab(vocab, chat_template, writer));
  EW_RETURN_IF_ERROR(AddWeights(config, *tensors, type, writer, &report));
  report.bytes = writer.FileBytes();

  const std::string temporary = out + ".writing.gguf";
  EW_RETURN_IF_ERROR(writer.Write(env, temporary));
  const Result<double> error = FileError(ctx, directory, temporary);
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
