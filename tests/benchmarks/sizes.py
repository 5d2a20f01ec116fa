"""What is computed in each benchmark: sizes, initial weights and data, the same for all sides. NumPy only."""

from dataclasses import dataclass

import numpy as np

NAMES = (
    "train/micro",
    "train/nano",
    "train/small",
    "train/baby",
    "generate/batch1",
    "generate/batch8",
    "bert/forward",
    "overhead/4x4",
    "import",
    "memory/small",
)

# AdamW and clipping of every training step
LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY, CLIP = 1e-3, (0.9, 0.99), 1e-8, 0.1, 1.0
PROMPT, NEW_TOKENS = 16, 32  # of a generation, for each row
LINKS, OPERATIONS = 12, 60  # of the chain on 4 × 4 arrays: five operations a link


@dataclass(frozen=True)
class Size:
    vocab_size: int
    context_length: int
    d_model: int
    num_layers: int
    num_heads: int
    batch_size: int
    d_ff: int


TRAINING = {
    "tiny": Size(11, 7, 12, 1, 3, 2, 48),  # for the tests of the benchmark itself
    "micro": Size(65, 32, 64, 2, 4, 8, 256),
    "nano": Size(65, 64, 128, 4, 4, 12, 512),
    "small": Size(512, 128, 256, 4, 8, 16, 1024),
    "baby": Size(65, 256, 384, 6, 6, 16, 1536),
}
GPT2_SMALL = Size(50257, 1024, 768, 12, 12, 1, 3072)
BERT = Size(10000, 128, 512, 6, 8, 8, 2048)


def gpt_weights(size: Size) -> dict[str, np.ndarray]:
    """Draw a GPT's weights, under the names they have in this library: matrices are (in, out)."""
    d = size.d_model
    tables = {"token_embedding": size.vocab_size, "position_embedding": size.context_length}
    return _weights(size, tables, "blocks") | {"norm.weight": _ones(d), "norm.bias": _zeros(d)}


def bert_weights(size: Size) -> dict[str, np.ndarray]:
    """Draw a BERT encoder's weights: the document's, with a norm behind the embeddings and no pooler."""
    d = size.d_model
    tables = {
        "token_embedding": size.vocab_size,
        "position_embedding": size.context_length,
        "segment_embedding": 2,
    }
    return _weights(size, tables, "layers") | {"norm.weight": _ones(d), "norm.bias": _zeros(d)}


def _weights(size: Size, tables: dict[str, int], stack: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    d, f = size.d_model, size.d_ff

    def normal(*shape: int) -> np.ndarray:
        return np.float32(0.02) * rng.standard_normal(shape, dtype=np.float32)

    weights = {f"{name}.weight": normal(rows, d) for name, rows in tables.items()}
    maps = dict.fromkeys([f"self_attention.{W}" for W in ("W_Q", "W_K", "W_V", "W_O")], (d, d))
    maps |= {"feed_forward.linear1": (d, f), "feed_forward.linear2": (f, d)}
    for i in range(size.num_layers):
        for name, shape in maps.items():
            weights[f"{stack}.{i}.{name}.weight"] = normal(*shape)
            weights[f"{stack}.{i}.{name}.bias"] = _zeros(shape[1])
        for norm in ("norm1", "norm2"):
            weights[f"{stack}.{i}.{norm}.weight"] = _ones(d)
            weights[f"{stack}.{i}.{norm}.bias"] = _zeros(d)
    return weights


def _ones(n: int) -> np.ndarray:
    return np.ones(n, np.float32)


def _zeros(n: int) -> np.ndarray:
    return np.zeros(n, np.float32)


def batches(size: Size, number: int = 8) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw inputs and targets, each (batch, T); a training goes round them."""
    rng = np.random.default_rng(2)
    shape = (number, size.batch_size, size.context_length + 1)
    ids = rng.integers(0, size.vocab_size, shape)
    return [(b[:, :-1].copy(), b[:, 1:].copy()) for b in ids]


def prompts(rows: int) -> np.ndarray:
    """Draw the beginnings (rows, T) that a generation goes on from."""
    return np.random.default_rng(3).integers(0, GPT2_SMALL.vocab_size, (rows, PROMPT))


def chain_inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw x, w and b of the chain, each (4, 4)."""
    x, w, b = np.random.default_rng(4).standard_normal((3, 4, 4), dtype=np.float32)
    return x, w, b
