"""This library's side of the benchmarks."""

import numpy as np
import sizes

import tinytransformer as tt
from tinytransformer.generation import generate
from tinytransformer.models import BERT, GPT, BERTConfig, GPTConfig
from tinytransformer.text import ByteTokenizer
from tinytransformer.training import Trainer, TrainingSettings


def make(name, threads, compiled=False):
    """Return the work of a benchmark."""
    kind, _, size = name.partition("/")
    if kind == "train":
        return Train(sizes.TRAINING[size], threads)
    if kind == "generate":
        return Generate(int(size.removeprefix("batch")))
    return {"bert": Forward, "overhead": Chain}[kind]()


def gpt(size):
    config = GPTConfig(
        size.vocab_size, size.context_length, size.d_model, size.num_layers, size.num_heads, size.d_ff
    )
    model = GPT(config, np.random.default_rng(0))
    model.load_state_dict(sizes.gpt_weights(size))
    return model


class Train:
    """The trainer's own step, on batches that are drawn beforehand as the peers' are."""

    units, checks = 1, 3

    def __init__(self, size, threads):
        settings = TrainingSettings(
            learning_rate=sizes.LEARNING_RATE,
            schedule="constant",
            warmup=0,
            beta1=sizes.BETAS[0],
            beta2=sizes.BETAS[1],
            weight_decay=sizes.WEIGHT_DECAY,
            clip=sizes.CLIP,
            threads=threads,
        )
        self.trainer = Trainer(gpt(size), Batches(size), settings, ByteTokenizer())
        self.working = self.trainer.gradients.working()  # kept: forgotten, it would end at once
        self.working.__enter__()  # as Trainer.run does, here to the end of the process

    def step(self):
        return self.trainer.train_step()["loss"]

    def processes(self):
        """Return those that share the work with this one."""
        return getattr(self.trainer.gradients.others, "ids", [])


class Batches:
    """The task: guess the targets that go with each batch."""

    def __init__(self, size):
        self.batches = sizes.batches(size)
        self.tokens_per_batch = size.batch_size * size.context_length

    def batch(self, step):
        return self.batches[step % len(self.batches)]

    def loss(self, model, inputs, targets):
        return model.loss(inputs, targets)

    def count(self, inputs, targets):
        return targets.size


class Generate:
    units, checks = sizes.NEW_TOKENS, 1

    def __init__(self, rows):
        self.model = gpt(sizes.GPT2_SMALL)
        self.prompts = list(sizes.prompts(rows))

    def step(self):
        found = generate(self.model, self.prompts, sizes.NEW_TOKENS, temperature=0)
        return np.array(found).tolist()


class Forward:
    units, checks = 1, 1

    def __init__(self):
        s = sizes.BERT
        config = BERTConfig(s.vocab_size, s.context_length, s.d_model, s.num_layers, s.num_heads, s.d_ff)
        self.model = BERT(config, np.random.default_rng(0), pooler=False).eval()
        self.model.load_state_dict(sizes.bert_weights(s))
        self.ids = sizes.batches(s, 1)[0][0]

    def step(self):
        with tt.no_grad():
            hidden = self.model(self.ids).hidden
        return hidden.data[0, 0, :8].tolist()


class Chain:
    units, checks = sizes.OPERATIONS, 1

    def __init__(self):
        self.inputs = [tt.tensor(a, requires_grad=True) for a in sizes.chain_inputs()]

    def step(self):
        x, w, b = self.inputs
        for t in self.inputs:
            t.grad = None
        y = x
        for _ in range(sizes.LINKS):
            y = tt.tanh(y @ w + b) * x - b
        loss = y.sum()
        loss.backward()
        return [loss.item(), w.grad.data[0, 0].item()]
