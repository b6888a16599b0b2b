#!/usr/bin/env python3
"""Prefill and decode beside llama.cpp (or a fork of it) on the same shape, in one run.

  bench/compare/llama_bench.py --edgewise build/release/edgewise --shape smollm2-135m --bits 4 \
      --llama /path/to/llama-bench [--llama /path/to/another/llama-bench]

Both sides have random weights of the shape: llama-bench reads a GGUF file that this script writes
(Q4_0 or Q8_0, norms fp32), edgewise makes packed weights of the same width. Rounds alternate
between the programs; the best round of each counts, since other work on the machine only ever makes
them slower. What is printed: tokens per second, and ours over theirs.
"""
import argparse
import json
import os
import random
import shlex
import struct
import subprocess
import sys
import tempfile

# hidden, ffn, layers, heads, kv heads, head dim, vocabulary, tied
SHAPES = {
    "smollm2-135m": (576, 1536, 30, 9, 3, 64, 49152, True),
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 64, 151936, True),
    "tinyllama-1.1b": (2048, 5632, 22, 32, 4, 64, 32000, False),
    "llama-7b": (4096, 11008, 32, 32, 32, 128, 32000, False),
}
F32, Q4_0, Q8_0 = 0, 2, 8  # tensor types of GGUF
ALIGNMENT = 32


def text(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name, value):
    if isinstance(value, str):
        return text(name) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(name) + struct.pack("<If", 6, value)
    return text(name) + struct.pack("<II", 4, value)


def tensors(shape, kind):
    """(name, dimensions in ggml's order, type)"""
    hidden, ffn, layers, heads, kv_heads, dim, vocab, tied = shape
    yield "token_embd.weight", (hidden, vocab), kind
    yield "output_norm.weight", (hidden,), F32
    if not tied:
        yield "output.weight", (hidden, vocab), kind
    for i in range(layers):
        for name, dims in (
            ("attn_norm", (hidden,)),
            ("attn_q", (hidden, heads * dim)),
            ("attn_k", (hidden, kv_heads * dim)),
            ("attn_v", (hidden, kv_heads * dim)),
            ("attn_output", (heads * dim, hidden)),
            ("ffn_norm", (hidden,)),
            ("ffn_gate", (hidden, ffn)),
            ("ffn_up", (hidden, ffn)),
            ("ffn_down", (ffn, hidden)),
        ):
            yield f"blk.{i}.{name}.weight", dims, F32 if len(dims) == 1 else kind


def tensor_bytes(dims, kind):
    count = 1
    for d in dims:
        count *= d
    return count * 4 if kind == F32 else count // 32 * (18 if kind == Q4_0 else 34)


def write_gguf(path, shape, bits):
    hidden, ffn, layers, heads, kv_heads, dim, vocab, _ = shape
    kind = Q4_0 if bits == 4 else Q8_0
    keys = [
        key("general.architecture", "llama"),
        key("general.file_type", 2 if bits == 4 else 7),
        key("llama.context_length", 4096),
        key("llama.embedding_length", hidden),
        key("llama.block_count", layers),
        key("llama.feed_forward_length", ffn),
        key("llama.attention.head_count", heads),
        key("llama.attention.head_count_kv", kv_heads),
        key("llama.attention.layer_norm_rms_epsilon", 1e-5),
        key("llama.rope.dimension_count", dim),
        key("llama.vocab_size", vocab),
        key("tokenizer.ggml.model", "none"),
    ]
    listed = list(tensors(shape, kind))
    rng = random.Random(1)
    # 4096 random blocks of 32 weights, repeated: a scale of 0.005 and random codes.
    codes = 16 if bits == 4 else 32
    pattern = b"".join(struct.pack("<e", 0.005) + rng.randbytes(codes) for _ in range(4096))
    with open(path, "wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(keys)) + b"".join(keys))
        offset = 0
        for name, dims, kind_of in listed:
            out.write(text(name) + struct.pack("<I", len(dims)))
            out.write(struct.pack(f"<{len(dims)}Q", *dims) + struct.pack("<IQ", kind_of, offset))
            offset += (tensor_bytes(dims, kind_of) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        out.write(bytes(-out.tell() % ALIGNMENT))
        for _, dims, kind_of in listed:
            left = tensor_bytes(dims, kind_of)
            unit = struct.pack("<f", 1.0) * 4096 if kind_of == F32 else pattern
            while left > 0:
                left -= out.write(unit[: min(left, len(unit))])
            out.write(bytes(-out.tell() % ALIGNMENT))


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout)


def edgewise(args, what):
    command = [args.edgewise, "bench", what, "--shape", args.shape, "--bits", str(args.bits)]
    command += ["--group", str(args.group), "--threads", str(args.threads), "--json", "--quiet"]
    command += ["--embedding-bits", str(args.bits)]
    if args.act_group is not None:
        command += ["--act-group", str(args.act_group)]
    if what == "prefill":
        command += ["--tokens", str(args.prompt), "--steps", str(args.repeat)]
    else:
        command += ["--tokens", "1", "--steps", str(args.decode)]
    result = run(command)
    return result["tokens"] / result["seconds_min" if what == "prefill" else "seconds_median"]


def llama(args, program, model, what):
    p, n = (args.prompt, 0) if what == "prefill" else (0, args.decode)
    command = [program, "-m", model, "-p", str(p), "-n", str(n), "-t", str(args.threads)]
    rows = run(command + ["-r", str(args.repeat), "-mmp", "0", "-o", "json"] + args.llama_args)
    return max(max(row.get("samples_ts") or [row["avg_ts"]]) for row in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--edgewise", default="build/release/edgewise")
    parser.add_argument("--llama", action="append", required=True, help="a llama-bench program")
    parser.add_argument(
        "--llama-args", type=shlex.split, default=[], help="more arguments for it: '-rtr 1'"
    )
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4)
    parser.add_argument("--group", type=int, choices=(0, 32, 64, 128), default=64)
    parser.add_argument("--act-group", type=int, help="columns of activations per scale")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--what", choices=("prefill", "decode"), nargs="*")
    args = parser.parse_args()
    report = {"shape": args.shape, "bits": args.bits, "group": args.group, "threads": args.threads}
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.gguf")
        write_gguf(model, SHAPES[args.shape], args.bits)
        for what in args.what or ("prefill", "decode"):
            best = {}
            for _ in range(args.rounds):
                best["edgewise"] = max(best.get("edgewise", 0), edgewise(args, what))
                for program in args.llama:
                    best[program] = max(best.get(program, 0), llama(args, program, model, what))
            ours = best["edgewise"]
            report[what] = {
                name: {"tokens_per_second": round(rate, 1), "ratio": round(ours / rate, 3)}
                for name, rate in best.items()
            }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
