#!/usr/bin/env python3
"""Speed and memory of a full-depth LoRA step in PyTorch + PEFT, to hold `edgewise bench tune` against.

Random weights of a named shape, LoRA on all linears, AdamW, fp32, batch 1 x --seq tokens, every
token a label: what `edgewise bench tune --method lora --shape NAME` does. One JSON object on stdout.

The settings are those that make PyTorch fast on small machines: tcmalloc is preloaded when it is
installed (Debian: libtcmalloc-minimal4), threads as given, no OMP_WAIT_POLICY. Needs torch,
transformers and peft, for example in the virtual environment of tests/peft.

usage: pytorch_lora.py --shape smollm2-135m [--steps 5] [--seq 512] [--threads 2] [--recompute]
"""

import argparse
import glob
import json
import os
import statistics
import sys
import time

# hidden, ffn, layers, heads, kv heads, vocabulary, tied
SHAPES = {
    "smollm2-135m": (576, 1536, 30, 9, 3, 49152, True),
    "qwen2.5-0.5b": (896, 4864, 24, 14, 2, 151936, True),
    "tinyllama-1.1b": (2048, 5632, 22, 32, 4, 32000, False),
}


def preload_tcmalloc():
    found = glob.glob("/usr/lib/*/libtcmalloc_minimal.so.4")
    if not found or "tcmalloc" in os.environ.get("LD_PRELOAD", ""):
        return bool(found)
    os.environ["LD_PRELOAD"] = found[0]
    os.execv(sys.executable, [sys.executable, *sys.argv])


def peak_rss_bytes():
    for line in open("/proc/self/status", encoding="ascii"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--recompute", action="store_true")
    args = parser.parse_args()
    tcmalloc = preload_tcmalloc()

    import peft
    import torch
    import transformers
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    hidden, ffn, layers, heads, kv_heads, vocab, tied = SHAPES[args.shape]
    # A Qwen2 block differs from LLaMA's by three biases, which cost nothing that shows here.
    config = transformers.LlamaConfig(
        hidden_size=hidden, intermediate_size=ffn, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocab,
        tie_word_embeddings=tied, max_position_embeddings=2048, use_cache=False)
    model = transformers.LlamaForCausalLM(config)
    model = peft.get_peft_model(model, peft.LoraConfig(
        r=args.rank, lora_alpha=2 * args.rank, target_modules="all-linear",
        task_type="CAUSAL_LM"))
    model.train()
    if args.recompute:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.0)
    ids = torch.randint(0, vocab, (1, args.seq))

    seconds = []
    for step in range(args.steps + 1):
        start = time.perf_counter()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step > 0:
            seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    print(json.dumps({
        "bench": "tune", "engine": "pytorch", "shape": args.shape,
        "tokens_per_second": args.seq / median, "peak_rss_bytes": peak_rss_bytes(),
        "seconds_median": median, "seconds_min": min(seconds), "seconds_max": max(seconds),
        "repeats": len(seconds), "tokens": args.seq, "threads": args.threads,
        "recompute": args.recompute, "tcmalloc": tcmalloc, "loss": loss.item(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__,
                     "peft": peft.__version__}}))


if __name__ == "__main__":
    main()
