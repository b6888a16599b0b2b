#!/usr/bin/env python3
"""Writes a very small untrained LLaMA model as a Hugging Face directory.

The tokenizer is byte-level BPE whose merges are learned from the given text files; the weights are
random. It knows nothing: it is there to be tuned. The result is a pure function of the arguments.

usage: make_model.py DIRECTORY TEXT.jsonl... [--hidden N] [--layers N] [--merges N] [--seed S]
"""

import argparse
import array
import collections
import json
import pathlib
import random
import struct
import sys

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_alphabet():
    """Every byte as a printable character: the table of GPT-2's byte-level BPE."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def words_of(paths, table):
    """Counts of words, each with its leading space, in the alphabet of the tokenizer."""
    counts = collections.Counter()
    for path in paths:
        for line in open(path, encoding="utf-8"):
            row = json.loads(line)
            text = " ".join(message["content"] for message in row["messages"])
            for word in text.split(" "):
                for piece in (word, " " + word):
                    if piece.strip():
                        counts[tuple(table[b] for b in piece.encode())] += 1
    return counts


def learn_merges(counts, limit):
    merges = []
    while len(merges) < limit:
        pairs = collections.Counter()
        for word, n in counts.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        if not pairs:
            break
        # Ties are broken by the pair itself, so that the result does not depend on the order.
        best = max(pairs, key=lambda p: (pairs[p], p))
        if pairs[best] < 2:
            break
        merges.append(best)
        merged = collections.Counter()
        for word, n in counts.items():
            out, i = [], 0
            while i < len(word):
                if i + 1 < len(word) and (word[i], word[i + 1]) == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] += n
        counts = merged
    return merges


def tokenizer_json(table, merges):
    vocab = {piece: i for i, piece in enumerate(SPECIALS)}
    for piece in [table[b] for b in range(256)] + [a + b for a, b in merges]:
        vocab.setdefault(piece, len(vocab))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": True}
    return vocab, {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": piece, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for i, piece in enumerate(SPECIALS)],
        "normalizer": None, "pre_tokenizer": byte_level, "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": [f"{a} {b}" for a, b in merges]}}


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, values) in tensors.items():
        size = 4 * len(values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, values in tensors.values():
            out.write(values.tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("texts", nargs="+", type=pathlib.Path)
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--merges", type=int, default=250)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if sys.byteorder != "little":
        raise SystemExit("safetensors files are little-endian; this machine is not")

    table = byte_alphabet()
    merges = learn_merges(words_of(args.texts, table), args.merges)
    vocab, tokenizer = tokenizer_json(table, merges)
    hidden, ffn, heads = args.hidden, args.hidden * 8 // 3 // 8 * 8, 4
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": ffn, "num_hidden_layers": args.layers, "num_attention_heads": heads,
        "num_key_value_heads": heads, "vocab_size": len(vocab), "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "rope_theta": 10000.0,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False,
        "bos_token_id": 0, "eos_token_id": 2, "torch_dtype": "float32"}

    rng = random.Random(args.seed)

    def matrix(rows, cols):
        scale = cols ** -0.5
        return [rows, cols], array.array("f", (rng.gauss(0, scale) for _ in range(rows * cols)))

    def ones():
        return [hidden], array.array("f", [1.0] * hidden)

    tensors = {"model.embed_tokens.weight": matrix(len(vocab), hidden),
               "model.norm.weight": ones()}
    for i in range(args.layers):
        layer = f"model.layers.{i}."
        tensors[layer + "input_layernorm.weight"] = ones()
        tensors[layer + "post_attention_layernorm.weight"] = ones()
        for name in ["q_proj", "k_proj", "v_proj", "o_proj"]:
            tensors[layer + f"self_attn.{name}.weight"] = matrix(hidden, hidden)
        tensors[layer + "mlp.gate_proj.weight"] = matrix(ffn, hidden)
        tensors[layer + "mlp.up_proj.weight"] = matrix(ffn, hidden)
        tensors[layer + "mlp.down_proj.weight"] = matrix(hidden, ffn)

    template = ("{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
                "message['content'] + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
                "{{ '<|im_start|>assistant\\n' }}{% endif %}")
    args.directory.mkdir(parents=True, exist_ok=True)
    files = {"config.json": config, "tokenizer.json": tokenizer,
             "tokenizer_config.json": {"bos_token": SPECIALS[0], "eos_token": SPECIALS[2],
                                       "chat_template": template},
             "generation_config.json": {"eos_token_id": [0, 2]}}
    for name, contents in files.items():
        (args.directory / name).write_text(json.dumps(contents, indent=1) + "\n")
    write_safetensors(args.directory / "model.safetensors", dict(sorted(tensors.items())))


if __name__ == "__main__":
    main()
