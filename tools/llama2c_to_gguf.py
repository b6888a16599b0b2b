#!/usr/bin/env python3
"""Converts a model of llama2.c (its first, header-less export, fp32) to a GGUF file.

The weights are taken over as they are: llama2.c rotates neighbouring elements of q and k, and so
does the "llama" architecture of GGUF. The tokenizer (tok*.bin: scores and pieces) becomes a
SentencePiece vocabulary.

usage: llama2c_to_gguf.py MODEL.bin TOKENIZER.bin OUT.gguf
"""

import struct
import sys

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5
ALIGNMENT = 32


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def pack(kind, value):
    if kind == STRING:
        return string(value)
    return struct.pack({U32: "<I", F32: "<f", BOOL: "<?", I32: "<i"}[kind], value)


def entry(key, kind, value):
    return string(key) + struct.pack("<I", kind) + pack(kind, value)


def array_entry(key, kind, values):
    return (string(key) + struct.pack("<IIQ", ARRAY, kind, len(values)) +
            b"".join(pack(kind, v) for v in values))


def read_tokenizer(path, count):
    data = open(path, "rb").read()
    at, pieces, scores, types = 4, [], [], []
    for i in range(count):
        score, length = struct.unpack_from("<fi", data, at)
        piece = data[at + 8:at + 8 + length]
        at += 8 + length
        byte = len(piece) == 6 and piece.startswith(b"<0x")
        if i < 3:  # unknown, begin, end; the file spells the last two with line ends around them
            piece = [b"<unk>", b"<s>", b"</s>"][i]
        pieces.append(piece if byte else piece.replace(b" ", "\u2581".encode()))
        scores.append(score)
        types.append(2 if i == 0 else 3 if i < 3 else 6 if byte else 1)
    return pieces, scores, types


def read_tensors(path):
    data = open(path, "rb").read()
    dim, ffn, layers, heads, kv_heads, vocab, context = struct.unpack_from("<7i", data, 0)
    shared, vocab = vocab > 0, abs(vocab)
    head = dim // heads
    at = 28
    tensors = {}

    def take(name, shape):
        nonlocal at
        size = 4
        for n in shape:
            size *= n
        if at + size > len(data):
            raise SystemExit(f"{path}: ends inside {name}")
        tensors[name] = (shape, data[at:at + size])
        at += size

    def take_layers(name, shape):
        for i in range(layers):
            take(f"blk.{i}.{name}.weight", shape)

    take("token_embd.weight", [vocab, dim])
    take_layers("attn_norm", [dim])
    take_layers("attn_q", [dim, dim])
    take_layers("attn_k", [kv_heads * head, dim])
    take_layers("attn_v", [kv_heads * head, dim])
    take_layers("attn_output", [dim, dim])
    take_layers("ffn_norm", [dim])
    take_layers("ffn_gate", [ffn, dim])
    take_layers("ffn_down", [dim, ffn])
    take_layers("ffn_up", [ffn, dim])
    take("output_norm.weight", [dim])
    at += 2 * 4 * context * (head // 2)  # tables of cosines and sines
    if not shared:
        take("output.weight", [vocab, dim])
    config = {"embedding_length": dim, "feed_forward_length": ffn, "block_count": layers,
              "attention.head_count": heads, "attention.head_count_kv": kv_heads,
              "context_length": context, "rope.dimension_count": head, "vocab_size": vocab}
    return config, tensors


def main():
    if len(sys.argv) != 4:
        raise SystemExit(__doc__.strip().splitlines()[-1])
    model, tokenizer, out = sys.argv[1:]
    config, tensors = read_tensors(model)
    pieces, scores, types = read_tokenizer(tokenizer, config["vocab_size"])
    entries = [entry("general.architecture", STRING, "llama"),
               entry("general.alignment", U32, ALIGNMENT)]
    entries += [entry("llama." + key, U32, value) for key, value in config.items()]
    entries += [entry("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
                entry("llama.rope.freq_base", F32, 10000.0),
                entry("tokenizer.ggml.model", STRING, "llama"),
                array_entry("tokenizer.ggml.tokens", STRING, pieces),
                array_entry("tokenizer.ggml.scores", F32, scores),
                array_entry("tokenizer.ggml.token_type", I32, types),
                entry("tokenizer.ggml.unknown_token_id", U32, 0),
                entry("tokenizer.ggml.bos_token_id", U32, 1),
                entry("tokenizer.ggml.eos_token_id", U32, 2),
                entry("tokenizer.ggml.add_bos_token", BOOL, True)]
    infos, offset = [], 0
    for name, (shape, data) in tensors.items():
        infos.append(string(name) + struct.pack("<I", len(shape)) +
                     b"".join(struct.pack("<Q", n) for n in reversed(shape)) +
                     struct.pack("<IQ", 0, offset))
        offset += len(data) + -len(data) % ALIGNMENT
    with open(out, "wb") as file:
        header = (b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(entries)) + b"".join(entries) +
                  b"".join(infos))
        file.write(header + b"\0" * (-len(header) % ALIGNMENT))
        for _, data in tensors.values():
            file.write(data + b"\0" * (-len(data) % ALIGNMENT))


if __name__ == "__main__":
    main()
