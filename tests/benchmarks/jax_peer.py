"""JAX's side of the benchmarks: the whole step is one compiled function, its buffers are given back to it."""

import functools
import itertools
import os

import sizes

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp


def make(name, threads, compiled=False):
    """Return the work of a benchmark; JAX takes as many threads as this process has cores."""
    kind, _, size = name.partition("/")
    if kind == "train":
        return Train(sizes.TRAINING[size])
    if kind == "generate":
        return Generate(int(size.removeprefix("batch")))
    return {"bert": Forward, "overhead": Chain}[kind]()


def layers_of(weights, stack, num_layers):
    """Put the weights of each layer together, with one matrix for queries, keys and values."""
    layers = []
    for i in range(num_layers):
        p = {n.removeprefix(f"{stack}.{i}."): w for n, w in weights.items() if n.startswith(f"{stack}.{i}.")}
        for kind in ("weight", "bias"):
            parts = [p.pop(f"self_attention.{W}.{kind}") for W in ("W_Q", "W_K", "W_V")]
            p[f"qkv.{kind}"] = jnp.concatenate(parts, axis=-1)
        layers.append(p)
    rest = {name: jnp.asarray(w) for name, w in weights.items() if not name.startswith(f"{stack}.")}
    return jax.tree.map(jnp.asarray, {**rest, "layers": layers})


def linear(p, name, x):
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def norm(p, name, x, eps):
    mean = x.mean(-1, keepdims=True)
    variance = x.var(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + eps) * p[f"{name}.weight"] + p[f"{name}.bias"]


def heads(p, x, num_heads):
    """Map (B, T, d) to queries, keys and values, each (B, T, heads, d_k)."""
    B, T, d = x.shape
    return [a.reshape(B, T, num_heads, d // num_heads) for a in jnp.split(linear(p, "qkv", x), 3, axis=-1)]


def attend(p, q, k, v, **options):
    mixed = jax.nn.dot_product_attention(q, k, v, **options)
    return linear(p, "self_attention.W_O", mixed.reshape(*mixed.shape[:2], -1))


def feed_forward(p, x, approximate):
    hidden = jax.nn.gelu(linear(p, "feed_forward.linear1", x), approximate=approximate)
    return linear(p, "feed_forward.linear2", hidden)


def gpt_loss(params, ids, targets, num_heads):
    x = params["token_embedding.weight"][ids] + params["position_embedding.weight"][: ids.shape[1]]
    for p in params["layers"]:
        x = x + attend(p, *heads(p, norm(p, "norm1", x, 1e-5), num_heads), is_causal=True)
        x = x + feed_forward(p, norm(p, "norm2", x, 1e-5), approximate=True)
    logits = norm(params, "norm", x, 1e-5) @ params["token_embedding.weight"].T
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - chosen).mean()


@functools.partial(jax.jit, static_argnums=6, donate_argnums=(0, 1, 2))
def train_step(params, m, v, t, ids, targets, num_heads):
    loss, grads = jax.value_and_grad(gpt_loss)(params, ids, targets, num_heads)
    length = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(grads)))
    scale = jnp.minimum(1.0, sizes.CLIP / length)
    beta1, beta2 = sizes.BETAS

    def update(p, g, m, v):
        g = g * scale
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        step = (m / (1 - beta1**t)) / (jnp.sqrt(v / (1 - beta2**t)) + sizes.EPS)
        decay = sizes.WEIGHT_DECAY if p.ndim >= 2 else 0.0
        return p * (1 - sizes.LEARNING_RATE * decay) - sizes.LEARNING_RATE * step, m, v

    updated = jax.tree.map(update, params, grads, m, v)
    parts = [jax.tree.map(lambda _, u, i=i: u[i], params, updated) for i in range(3)]
    return (*parts, loss)


class Train:
    units, checks = 1, 3

    def __init__(self, size):
        self.num_heads = size.num_heads
        self.params = layers_of(sizes.gpt_weights(size), "blocks", size.num_layers)
        self.m, self.v = (jax.tree.map(jnp.zeros_like, self.params) for _ in range(2))
        self.batches = itertools.cycle(
            [(jnp.asarray(x, "int32"), jnp.asarray(y, "int32")) for x, y in sizes.batches(size)]
        )
        self.steps = 0

    def step(self):
        self.steps += 1
        done = train_step(self.params, self.m, self.v, float(self.steps), *next(self.batches), self.num_heads)
        self.params, self.m, self.v, loss = jax.block_until_ready(done)
        return float(loss)


@functools.partial(jax.jit, static_argnums=(2, 3))
def generate(params, ids, new_tokens, num_heads):
    """Continue ids (rows, T): the prompt in one piece, then a loop over tokens, all in one function."""
    rows, T = ids.shape
    d = params["token_embedding.weight"].shape[1]
    empty = jnp.zeros((len(params["layers"]), 2, rows, T + new_tokens, num_heads, d // num_heads))

    def after(cache, ids, start):
        t = ids.shape[1]
        positions = jax.lax.dynamic_slice_in_dim(params["position_embedding.weight"], start, t)
        x = params["token_embedding.weight"][ids] + positions
        mask = jnp.arange(T + new_tokens) <= start + jnp.arange(t)[:, None]  # (t, T + new_tokens)
        for i, p in enumerate(params["layers"]):
            q, *kv = heads(p, norm(p, "norm1", x, 1e-5), num_heads)
            cache = jax.lax.dynamic_update_slice(cache, jnp.stack(kv)[None], (i, 0, 0, start, 0, 0))
            x = x + attend(p, q, cache[i, 0], cache[i, 1], mask=mask[None, None])
            x = x + feed_forward(p, norm(p, "norm2", x, 1e-5), approximate=True)
        logits = norm(params, "norm", x[:, -1:], 1e-5) @ params["token_embedding.weight"].T
        return cache, logits.argmax(-1).astype(ids.dtype)  # (rows, 1)

    cache, first = after(empty, ids, 0)

    def loop(state, t):
        cache, found = after(*state, t)
        return (cache, found), found

    _, others = jax.lax.scan(loop, (cache, first), T + jnp.arange(new_tokens - 1))
    return jnp.concatenate([first, others[..., 0].T], axis=1)


class Generate:
    units, checks = sizes.NEW_TOKENS, 1

    def __init__(self, rows):
        s = sizes.GPT2_SMALL
        self.params = layers_of(sizes.gpt_weights(s), "blocks", s.num_layers)
        self.ids = jnp.asarray(sizes.prompts(rows), "int32")

    def step(self):
        return generate(self.params, self.ids, sizes.NEW_TOKENS, sizes.GPT2_SMALL.num_heads).tolist()


@functools.partial(jax.jit, static_argnums=2)
def bert(params, ids, num_heads):
    x = params["token_embedding.weight"][ids] + params["position_embedding.weight"][: ids.shape[1]]
    x = norm(params, "norm", x + params["segment_embedding.weight"][0], 1e-12)
    for p in params["layers"]:
        x = norm(p, "norm1", x + attend(p, *heads(p, x, num_heads)), 1e-12)
        x = norm(p, "norm2", x + feed_forward(p, x, approximate=False), 1e-12)
    return x


class Forward:
    units, checks = 1, 1

    def __init__(self):
        s = sizes.BERT
        self.params = layers_of(sizes.bert_weights(s), "layers", s.num_layers)
        self.ids = jnp.asarray(sizes.batches(s, 1)[0][0], "int32")

    def step(self):
        hidden = jax.block_until_ready(bert(self.params, self.ids, sizes.BERT.num_heads))
        return hidden[0, 0, :8].tolist()


class Chain:
    """Without jit, which leaves nothing of single operations."""

    units, checks = sizes.OPERATIONS, 1

    def __init__(self):
        self.inputs = [jnp.asarray(a) for a in sizes.chain_inputs()]

    def step(self):
        def loss(x, w, b):
            y = x
            for _ in range(sizes.LINKS):
                y = jnp.tanh(y @ w + b) * x - b
            return y.sum()

        value, grads = jax.value_and_grad(loss, (0, 1, 2))(*self.inputs)
        return [float(value), float(grads[1][0, 0])]
