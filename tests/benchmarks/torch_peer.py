"""PyTorch's side of the benchmarks: eager with its fused attention and optimizer, or torch.compile."""

import itertools

import numpy as np
import sizes
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


def make(name, threads, compiled=False):
    """Return the work of a benchmark."""
    torch.set_num_threads(threads)
    kind, _, size = name.partition("/")
    if kind == "train":
        return Train(sizes.TRAINING[size], compiled)
    if kind == "generate":
        return Generate(int(size.removeprefix("batch")), compiled)
    return Forward(compiled) if kind == "bert" else Chain()


class Block(nn.Module):
    """Queries, keys and values come from one matrix, which is faster here than three."""

    def __init__(self, size, weights, norm_first, gelu, norm_eps):
        super().__init__()
        d = size.d_model
        self.num_heads, self.norm_first, self.gelu = size.num_heads, norm_first, gelu
        qkv = [f"self_attention.{W}" for W in ("W_Q", "W_K", "W_V")]
        self.qkv = linear(weights, *qkv)
        self.out = linear(weights, "self_attention.W_O")
        self.linear1 = linear(weights, "feed_forward.linear1")
        self.linear2 = linear(weights, "feed_forward.linear2")
        self.norm1, self.norm2 = (norm(weights, n, d, norm_eps) for n in ("norm1", "norm2"))

    def attend(self, x, attention):
        B, T, d = x.shape
        # (B, T, 3 d) -> three of (B, heads, T, d_k)
        q, k, v = self.qkv(x).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        return self.out(attention(q, k, v).transpose(1, 2).reshape(B, T, d))

    def forward(self, x, attention):
        if self.norm_first:
            x = x + self.attend(self.norm1(x), attention)
            return x + self.linear2(F.gelu(self.linear1(self.norm2(x)), approximate=self.gelu))
        x = self.norm1(x + self.attend(x, attention))
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x), approximate=self.gelu)))


def linear(weights, *names):
    weight = torch.cat([torch.from_numpy(weights[f"{n}.weight"]).T for n in names])  # (out, in)
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(torch.cat([torch.from_numpy(weights[f"{n}.bias"]) for n in names]))
    return layer


def norm(weights, name, d, eps):
    layer = nn.LayerNorm(d, eps)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights[f"{name}.weight"]))
        layer.bias.copy_(torch.from_numpy(weights[f"{name}.bias"]))
    return layer


def of_layer(weights, prefix):
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def causal(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


class GPT(nn.Module):
    def __init__(self, size):
        super().__init__()
        weights = sizes.gpt_weights(size)
        self.tokens = nn.Parameter(torch.from_numpy(weights["token_embedding.weight"]))
        self.positions = nn.Parameter(torch.from_numpy(weights["position_embedding.weight"]))
        self.blocks = nn.ModuleList(
            Block(size, of_layer(weights, f"blocks.{i}."), True, "tanh", 1e-5) for i in range(size.num_layers)
        )
        self.norm = norm(weights, "norm", size.d_model, 1e-5)

    def forward(self, ids):
        x = F.embedding(ids, self.tokens) + self.positions[: ids.shape[1]]
        for block in self.blocks:
            x = block(x, causal)
        return F.linear(self.norm(x), self.tokens)

    def loss(self, ids, targets):
        return F.cross_entropy(self(ids).flatten(0, 1), targets.flatten())


class Train:
    units, checks = 1, 3

    def __init__(self, size, compiled):
        self.model = GPT(size)
        self.loss = torch.compile(self.model.loss) if compiled else self.model.loss
        self.batches = itertools.cycle([tuple(map(torch.from_numpy, batch)) for batch in sizes.batches(size)])
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.parameters if p.ndim >= 2], "weight_decay": sizes.WEIGHT_DECAY},
                {"params": [p for p in self.parameters if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=sizes.LEARNING_RATE,
            betas=sizes.BETAS,
            eps=sizes.EPS,
            fused=True,
        )

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(*next(self.batches))
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, sizes.CLIP)
        self.optimizer.step()
        return loss.item()


class Generate:
    """Keys and values lie in buffers that are made once; a step attends to the part that is filled.

    torch.compile would compile that anew for each length: there a step attends to the whole buffer, masked.
    """

    units, checks = sizes.NEW_TOKENS, 1

    def __init__(self, rows, compiled):
        self.model = GPT(sizes.GPT2_SMALL)
        self.prompts = torch.from_numpy(sizes.prompts(rows))
        s = sizes.GPT2_SMALL
        self.length = sizes.PROMPT + sizes.NEW_TOKENS
        shape = (s.num_layers, rows, s.num_heads, self.length, s.d_model // s.num_heads)
        self.keys, self.values = torch.zeros(shape), torch.zeros(shape)
        self.whole = compiled
        self.next = torch.compile(self.after) if compiled else self.after

    def after(self, ids, positions):
        """Return the likeliest tokens (rows, 1) after these ids (rows, T), the last ones so far."""
        end = self.length if self.whole else int(positions[-1]) + 1
        mask = torch.arange(end) <= positions[:, None]  # (T, end)
        x = F.embedding(ids, self.model.tokens) + self.model.positions[positions]
        for block, keys, values in zip(self.model.blocks, self.keys, self.values, strict=True):

            def cached(q, k, v, keys=keys, values=values):
                keys[:, :, positions], values[:, :, positions] = k, v
                alone = q.shape[2] == 1 and not self.whole
                return F.scaled_dot_product_attention(
                    q, keys[:, :, :end], values[:, :, :end], attn_mask=None if alone else mask
                )

            x = block(x, cached)
        return F.linear(self.model.norm(x[:, -1:]), self.model.tokens).argmax(-1)

    @torch.inference_mode()
    def step(self):
        tokens = [self.next(self.prompts, torch.arange(sizes.PROMPT))]
        for t in range(sizes.PROMPT, self.length - 1):
            tokens.append(self.next(tokens[-1], torch.tensor([t])))
        return torch.cat(tokens, 1).tolist()


class Forward:
    units, checks = 1, 1

    def __init__(self, compiled):
        s = sizes.BERT
        self.model = BERT(s).eval()
        self.run = torch.compile(self.model) if compiled else self.model
        self.ids = torch.from_numpy(sizes.batches(s, 1)[0][0])

    @torch.inference_mode()
    def step(self):
        return self.run(self.ids)[0, 0, :8].tolist()


class BERT(nn.Module):
    def __init__(self, size):
        super().__init__()
        weights = sizes.bert_weights(size)
        for name in ("token", "position", "segment"):
            setattr(self, name, nn.Parameter(torch.from_numpy(weights[f"{name}_embedding.weight"])))
        self.norm = norm(weights, "norm", size.d_model, 1e-12)
        self.layers = nn.ModuleList(
            Block(size, of_layer(weights, f"layers.{i}."), False, "none", 1e-12)
            for i in range(size.num_layers)
        )

    def forward(self, ids):
        x = F.embedding(ids, self.token) + self.position[: ids.shape[1]] + self.segment[0]
        x = self.norm(x)
        for layer in self.layers:
            x = layer(x, F.scaled_dot_product_attention)
        return x


class Chain:
    units, checks = sizes.OPERATIONS, 1

    def __init__(self):
        self.inputs = [torch.tensor(np.array(a), requires_grad=True) for a in sizes.chain_inputs()]

    def step(self):
        x, w, b = self.inputs
        for t in self.inputs:
            t.grad = None
        y = x
        for _ in range(sizes.LINKS):
            y = torch.tanh(y @ w + b) * x - b
        loss = y.sum()
        loss.backward()
        return [loss.item(), w.grad[0, 0].item()]
