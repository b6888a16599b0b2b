// Puts the compressed layers together into a packed base (model/packed_base.h).
#pragma once

#include <string>

#include "base/status.h"
#include "compress/compressor.h"
#include "compress/partial_layers.h"
#include "compress/report.h"
#include "model/model.h"

namespace edgewise::compress {

// Writes OUT/: the layers, the embedding and head at the policy's widths, norms and biases; config,
// tokenizer and edgewise.json beside them. The packed file comes last: a directory that has it is
// complete. Completes the report with sizes. Memory: one matrix at a time.
Status WritePackedBase(const model::Model& model, const CompressOptions& options,
                       const PartialLayers& layers, const std::string& calibration_hash,
                       const std::string& identity_hash, const std::string& out,
                       CompressReport& report);

}  // namespace edgewise::compress
