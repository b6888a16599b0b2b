// The names of the methods on the command line and in files.
#include <fmt/format.h>

#include "compress/compressor.h"

namespace edgewise::compress {

Result<Pruner> ParsePruner(std::string_view name) {
  for (Pruner p : {Pruner::kSparseGpt, Pruner::kWanda, Pruner::kMagnitude}) {
    if (PrunerName(p) == name) return p;
  }
  return InvalidArgument(
      fmt::format("'{}' is not a pruner; known: sparsegpt, wanda, magnitude", name));
}

std::string_view PrunerName(Pruner pruner) {
  return pruner == Pruner::kSparseGpt ? "sparsegpt"
         : pruner == Pruner::kWanda   ? "wanda"
                                      : "magnitude";
}

Result<Quantizer> ParseQuantizer(std::string_view name) {
  if (name == "gptq") return Quantizer::kGptq;
  if (name == "rtn") return Quantizer::kRtn;
  return InvalidArgument(fmt::format("'{}' is not a quantizer; known: gptq, rtn", name));
}

std::string_view QuantizerName(Quantizer quantizer) {
  return quantizer == Quantizer::kGptq ? "gptq" : "rtn";
}

}  // namespace edgewise::compress
