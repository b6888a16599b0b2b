#!/usr/bin/env python3
"""Writes a LLaMA of a named shape with random bf16 weights as a Hugging Face directory: for
measuring the time and memory of commands that read models.

  tools/make_random_model.py smollm2-135m -o DIR --tokenizer MODEL_DIR

The tokenizer files are copied from another model whose vocabulary is not larger.
"""

import argparse
import json
import pathlib
import random
import shutil
import struct
import sys

# hidden, ffn, layers, heads, kv heads, vocabulary, tied
SHAPES = {
    "smollm2-135m": (576, 1536, 30, 9, 3, 49152, True),
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 151936, True),
    "tinyllama-1.1b": (2048, 5632, 22, 32, 4, 32000, False),
}
CHUNK = 1 << 22
# bf16 in little endian: the high byte is the sign and seven bits of the exponent. These two leave
# magnitudes of 2^-7 to 2^-5, about 0.018 in the mean square.
HIGH = bytes(0x3C if b < 128 else 0xBC for b in range(256))


def tensors(hidden, ffn, layers, heads, kv_heads, vocab, tied):
    kv = hidden // heads * kv_heads
    yield "model.embed_tokens.weight", (vocab, hidden)
    for i in range(layers):
        at = f"model.layers.{i}."
        yield at + "input_layernorm.weight", (hidden,)
        yield at + "self_attn.q_proj.weight", (hidden, hidden)
        yield at + "self_attn.k_proj.weight", (kv, hidden)
        yield at + "self_attn.v_proj.weight", (kv, hidden)
        yield at + "self_attn.o_proj.weight", (hidden, hidden)
        yield at + "post_attention_layernorm.weight", (hidden,)
        yield at + "mlp.gate_proj.weight", (ffn, hidden)
        yield at + "mlp.up_proj.weight", (ffn, hidden)
        yield at + "mlp.down_proj.weight", (hidden, ffn)
    yield "model.norm.weight", (hidden,)
    if not tied:
        yield "lm_head.weight", (vocab, hidden)


def count(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def write_weights(path, shape, seed):
    rng = random.Random(seed)
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, dims in tensors(*shape):
        size = 2 * count(dims)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, dims in tensors(*shape):
            left = count(dims)
            if len(dims) == 1:
                f.write(b"\x80\x3f" * left)  # gains of 1
                continue
            while left > 0:
                n = min(left, CHUNK)
                data = bytearray(rng.randbytes(2 * n))
                data[1::2] = bytes(data[1::2]).translate(HIGH)
                f.write(data)
                left -= n


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("shape", choices=sorted(SHAPES))
    p.add_argument("-o", "--output", required=True)
    p.add_argument("--tokenizer", required=True, help="model directory to copy tokenizer files from")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    hidden, ffn, layers, heads, kv_heads, vocab, tied = shape = SHAPES[args.shape]
    out = pathlib.Path(args.output)
    out.mkdir(parents=True)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "vocab_size": vocab, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": tied, "torch_dtype": "bfloat16",
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    copied = 0
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        source = pathlib.Path(args.tokenizer) / name
        if source.exists():
            shutil.copy(source, out / name)
            copied += 1
    if copied == 0:
        sys.exit(f"{args.tokenizer} has no tokenizer.json")
    write_weights(out / "model.safetensors", shape, args.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
