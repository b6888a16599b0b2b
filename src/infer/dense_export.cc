#include "infer/dense_export.h"

#include <utility>

#include "formats/gguf.h"
#include "infer/export_memory.h"
#include "infer/load_tokenizer.h"
#include "io/env.h"
#include "io/json.h"
#include "model/packed_base.h"
#include "model/save.h"
#include "text/gguf_export.h"

namespace edgewise::infer {
namespace {

using Kind = formats::ModelLocation::Kind;

constexpr const char* kCompanions[] = {"tokenizer.json",
                                       "tokenizer_config.json",
                                       "generation_config.json",
                                       "chat_template.jinja",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "tokenizer.model",
                                       "vocab.json",
                                       "merges.txt"};
constexpr int64_t kMaxCompanionBytes = int64_t{64} << 20;

// The weight's type as config.json spells it.
const char* TorchName(DType dtype) {
  return dtype == DType::kF32 ? "float32" : dtype == DType::kF16 ? "float16" : "bfloat16";
}

Status AddGgufTokenizer(const std::string& path, formats::HfDirWriter& writer) {
  EW_ASSIGN(const auto file, formats::GgufFile::Open(path));
  EW_ASSIGN(const text::GgufVocab vocab, ReadGgufVocab(*file));
  EW_ASSIGN(std::string tokenizer, text::GgufToTokenizerJson(vocab).WithContext(path));
  EW_ASSIGN(const std::string chat_template, file->StringOr("tokenizer.chat_template", ""));
  EW_RETURN_IF_ERROR(writer.AddFile("tokenizer.json", std::move(tokenizer)));
  return writer.AddFile("tokenizer_config.json", text::GgufToTokenizerConfig(vocab, chat_template));
}

}  // namespace

bool NeedsDenseExport(const formats::ModelLocation& location) {
  return location.kind == Kind::kGguf ||
         PosixEnv().Exists(JoinPath(location.path, model::kPackedFile));
}

DType DenseTypeOf(const model::Model& model, const model::WeightId& id,
                  std::optional<DType> wanted) {
  if (!id.is_matrix()) return wanted.value_or(DType::kF32);
  if (wanted) return *wanted;
  const kernels::WeightRef& w = model::MatrixOf(model.weights(), id);
  return w.packed == nullptr && (w.dtype == DType::kF16 || w.dtype == DType::kBF16) ? w.dtype
                                                                                    : DType::kF32;
}

Result<std::string> DenseConfig(const formats::ModelLocation& location, const model::Model& model,
                                std::optional<DType> wanted) {
  const bool dense = NeedsDenseExport(location);
  if (location.kind == Kind::kGguf) {
    EW_RETURN_IF_ERROR(model::CheckHfConfig(model.config()));
    return model::ConfigToHf(model.config(), wanted.value_or(DType::kF32));
  }
  const std::string path = JoinPath(location.path, "config.json");
  EW_ASSIGN(const std::string text, PosixEnv().ReadFile(path, kMaxCompanionBytes));
  if (!wanted && !dense) return text;
  EW_ASSIGN(Json json, ParseJson(text).WithContext(path));
  json[json.contains("dtype") ? "dtype" : "torch_dtype"] = TorchName(wanted.value_or(DType::kF32));
  return DumpJson(json, 2) + "\n";
}

Status AddCompanionFiles(const formats::ModelLocation& location, formats::HfDirWriter& writer) {
  if (location.kind == Kind::kGguf) return AddGgufTokenizer(location.path, writer);
  for (const char* name : kCompanions) {
    const std::string path = JoinPath(location.path, name);
    if (!PosixEnv().Exists(path)) continue;
    EW_ASSIGN(std::string contents, PosixEnv().ReadFile(path, kMaxCompanionBytes));
    EW_RETURN_IF_ERROR(writer.AddFile(name, std::move(contents)));
  }
  return Status::Ok();
}

Result<DenseReport> ExportDense(const formats::ModelLocation& location, std::optional<DType> wanted,
                                const std::string& out, int64_t memory_bytes) {
  EW_ASSIGN(const auto model, model::Model::Load(location.path, {.keep_quant = true}));
  EW_ASSIGN(std::string config, DenseConfig(location, *model, wanted));
  formats::HfDirWriter writer(std::move(config));
  DenseReport report;
  for (const model::WeightId& id : model::ListWeights(model->config())) {
    const DType dtype = DenseTypeOf(*model, id, wanted);
    const std::vector<int64_t> shape = model::ShapeOf(model->config(), id);
    int64_t elements = 1;
    for (int64_t d : shape) elements *= d;
    ++report.tensors;
    report.bytes += elements * static_cast<int64_t>(DTypeBytes(dtype));
    EW_RETURN_IF_ERROR(writer.Add(model::HfName(model->config(), id), dtype, shape,
                                  model::WeightProducer(*model, id, dtype)));
  }
  EW_RETURN_IF_ERROR(AddCompanionFiles(location, writer));
  EW_ASSIGN(
      report.predicted_peak_bytes,
      FitExport(memory_bytes, WritingBytes(), "the weights of a GGUF file are held as a whole"));
  EW_RETURN_IF_ERROR(PosixEnv().RemoveAll(out));
  EW_RETURN_IF_ERROR(writer.Write(PosixEnv(), out));
  return report;
}

}  // namespace edgewise::infer
