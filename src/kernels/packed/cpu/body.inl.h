// Bodies of Int8Table, on the vectors of one instruction set. The including file defines
// EW_PACKED_NAMESPACE and has included a vec_*.h with, in an unnamed namespace inside it:
//   VI: 16 / kVecs lanes of int32 (or 4 bytes each), VF: as many floats; kVecs vectors make a tile;
//   kVecBytes, kSignedPanel8, kPanelTiles and the operations used below.
#pragma once

#include "kernels/packed/cpu/product.inl.h"
//
#include "kernels/packed/cpu/activations.inl.h"
#include "kernels/packed/cpu/codes.inl.h"
#include "kernels/packed/cpu/panels.inl.h"
//
#include "kernels/packed/cpu/decode.inl.h"
#include "kernels/packed/cpu/decode_nm.inl.h"
#include "kernels/packed/cpu/kv.inl.h"

namespace edgewise::kernels::EW_PACKED_NAMESPACE {

extern const Int8Table kTable;
const Int8Table kTable = {
    .name = EW_PACKED_NAME,
    .panel_tiles = kPanelTiles,
    .corrects = kKeepTiles > 1,
    .signed8 = kSignedPanel8,
    .tile_product = TileProductFn,
    .decode_dense = DecodeTileFn,
    .decode_sparse = DecodeSparseFn,
    .decode_nm = DecodeNmFn,
    .unpack = Unpack,
    .expand = Expand,
    .expand_nm = ExpandNm,
    .unpack_raw = UnpackRaw,
    .transpose = Transpose,
    .requantize = Requantize,
    .dequantize = Dequantize,
    .quantize_row = QuantizeRowFn,
    .noise_row = NoiseRow,
    .finish_row = FinishRow,
    .half_to_float = HalfToFloatFn,
    .two_level = TwoLevel,
    .kv_dot = KvDot,
    .kv_axpy = KvAxpy,
};

}  // namespace edgewise::kernels::EW_PACKED_NAMESPACE
