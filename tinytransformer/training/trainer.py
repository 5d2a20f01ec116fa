"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from ..autograd import no_grad, raw
from ..backend import module_of, to_numpy
from ..kernels.precision import PRECISIONS, product_precision
from ..nn import Module, gradient_checkpointing
from ..optim import AdamW, Constant, Optimizer, WarmupCosine, WarmupLinear, clip_grad_norm, decay_groups
from ..text import Tokenizer
from .checkpoint import Checkpoint, CheckpointError, checkpoints_in, save_checkpoint
from .distributed import COMMAND, Communicator
from .log import Log
from .parallel import ParallelBatch
from .precision import LossScale
from .task import Batch, Task

__all__ = ["NonFiniteError", "Trainer", "TrainingSettings", "first_non_finite", "steps_within"]

ADVICE = ": train again with a lower learning rate or a longer warm-up; the last checkpoint is from before"


class NonFiniteError(ArithmeticError):
    """The loss or a gradient became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class TrainingSettings:
    """How to train, apart from the model and its task.

    Parameters
    ----------
    steps : int
        Optimizer steps of the whole run; the schedule is stretched to them.
    learning_rate : float
        At the end of the warm-up.
    final_learning_rate : float
        At the end of the run.
    warmup : int
        Steps over which the learning rate rises from 0.
    schedule : {"cosine", "linear", "constant"}
        How the learning rate falls after the warm-up.
    beta1, beta2 : float
        Memory of AdamW's first and second moment.
    weight_decay : float
        Decoupled decay of the matrices; biases and gains do not decay.
    clip : float
        Largest norm of the gradient of all parameters together.
    accumulate : int
        Batches whose gradients are added up before one step.
    threads : int
        Threads, or on Linux processes, that share a batch, each with some of its sequences: see
        `ParallelBatch`. With 1 the batch stays whole, and BLAS divides its products.
    evaluate_every, checkpoint_every : int
        Steps from one to the next.
    gradient_checkpointing : bool
        Compute the activations of each layer twice instead of keeping them: see `tinytransformer.checkpoint`.
    precision : {"float32", "tf32", "float16"}
        Of matrix products, as for `product_precision`; float16 comes with a `LossScale`. Parameters,
        gradients and moments are float32 always.

    Raises
    ------
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> TrainingSettings(steps=200, warmup=20).schedule
    'cosine'
    """

    steps: int = 1000
    learning_rate: float = 4e-3
    final_learning_rate: float = 0.0
    warmup: int = 100
    schedule: str = "cosine"
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.1
    clip: float = 1.0
    accumulate: int = 1
    threads: int = 1
    evaluate_every: int = 500
    checkpoint_every: int = 500
    gradient_checkpointing: bool = False
    precision: str = "float32"

    def __post_init__(self) -> None:
        for name in ("steps", "accumulate", "threads", "evaluate_every", "checkpoint_every"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a positive integer, not {getattr(self, name)!r}")
        if type(self.warmup) is not int or self.warmup < 0:
            raise ValueError(f"warmup must be an integer of at least 0, not {self.warmup!r}")
        for name in ("learning_rate", "clip"):
            if not _real(getattr(self, name)) or getattr(self, name) <= 0:
                raise ValueError(f"{name} must be a positive number, not {getattr(self, name)!r}")
        for name in ("final_learning_rate", "weight_decay"):
            if not _real(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} must be a number of at least 0, not {getattr(self, name)!r}")
        for name in ("beta1", "beta2"):
            if not _real(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), not {getattr(self, name)!r}")
        if type(self.gradient_checkpointing) is not bool:
            raise ValueError(
                f"gradient_checkpointing must be True or False, not {self.gradient_checkpointing!r}"
            )
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be {', '.join(PRECISIONS)}, not {self.precision!r}")
        if self.schedule not in ("cosine", "linear", "constant"):
            raise ValueError(f"schedule must be cosine, linear or constant, not {self.schedule!r}")

    def learning_rates(self) -> Callable[[int], float]:
        """Return the schedule: the learning rate of each step."""
        if self.schedule == "constant":
            return Constant(self.learning_rate)
        kind = WarmupCosine if self.schedule == "cosine" else WarmupLinear
        return kind(self.learning_rate, self.warmup, self.steps, self.final_learning_rate)


def _real(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


class Trainer:
    """Train a model on a task, with a log, evaluations and checkpoints, so that it can stop and go on.

    A run that goes on from a checkpoint takes the same steps, bit for bit, as one that never stopped: the
    batches of a task depend on its seed and the step alone, and the checkpoint holds weights, moments and
    random generator.

    Parameters
    ----------
    model : Module
        A model of `tinytransformer.models`.
    task : Task
        The batches, and what is small when the model does well.
    settings : TrainingSettings
    tokenizer : Tokenizer
        Saved with the model.
    folder : path, optional
        Where the log and the checkpoints go; without it nothing is written.
    data : dict, optional
        Facts about the data to keep in each checkpoint.
    log_name : str
        Name of the log in the folder; its ending chooses JSON lines or CSV.
    optimizer : Optimizer, optional
        What takes the steps, at the learning rate that the settings have for each; by default AdamW on all
        parameters, with the decay of the settings for the matrices alone.
    communicator : Communicator, optional
        The processes that train together: a step of N of them is that of one that accumulates N times as many
        batches. By default this one is alone.

    Attributes
    ----------
    step : int
        Steps taken so far.

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> from tinytransformer.tasks import LanguageModelling
    >>> from tinytransformer.text import ByteTokenizer
    >>> tokens = numpy.tile(ByteTokenizer().encode("to be or not "), 20)
    >>> task = LanguageModelling(tokens[:200], tokens[200:], batch_size=2, context=8)
    >>> model = GPT(GPTConfig(vocab_size=256, context_length=8, d_model=8, num_heads=2))
    >>> trainer = Trainer(model, task, TrainingSettings(steps=3, warmup=0), ByteTokenizer())
    >>> trainer.run(progress=False)
    >>> trainer.step
    3
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        settings: TrainingSettings,
        tokenizer: Tokenizer,
        folder: str | os.PathLike[str] | None = None,
        data: dict[str, Any] | None = None,
        log_name: str = "log.jsonl",
        optimizer: Optimizer | None = None,
        communicator: Communicator | None = None,
    ):
        self.communicator = communicator or Communicator()
        if self.communicator.rank:  # process 0 writes; and each drops others with dropout
            folder = None
            generator = model.rng.bit_generator
            generator.state = generator.jumped(self.communicator.rank).state
        self.model = model
        self.parameters = list(model.parameters())  # to find them takes time at each step
        self.task = task
        self.settings = settings
        self.tokenizer = tokenizer
        self.folder = None if folder is None else Path(folder)
        self.data = data or {}
        self.optimizer = optimizer or AdamW(
            decay_groups(model, settings.weight_decay),
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
        )
        self.gradients = ParallelBatch(model, task, settings.threads)
        if settings.gradient_checkpointing:
            gradient_checkpointing(model)
        self.loss_scale = LossScale.of(settings.precision)
        self.learning_rate = settings.learning_rates()
        self.log = None if self.folder is None else Log(self.folder / log_name)
        self.step = 0
        self.seconds = 0.0  # of training, over all sittings

    def run(self, progress: bool = True, seconds: float | None = None) -> None:
        """Take the steps that are left, with a progress bar.

        A checkpoint is there from the start, so that a run killed at any moment can go on.

        Parameters
        ----------
        progress : bool
            Show the bar.
        seconds : float, optional
            Time for training: the number of steps is corrected on the way, at the pace so far, and the
            schedule stretched to it. Without it the number stays as the settings have it.

        Raises
        ------
        NonFiniteError
            If loss, gradient or a parameter became NaN or infinite; the last checkpoint is from before.
        CheckpointError
            If the folder holds checkpoints of later steps.
        KeyboardInterrupt
            After Ctrl-C, once the step was finished and a checkpoint was written.
        """
        self._open_folder()
        started = time.perf_counter() - self.seconds
        looked = 0.0  # when the number of steps was last corrected
        with self.gradients.working(), _Interrupt() as interrupt, _bar(self, progress) as bar:
            while self.step < self.settings.steps:
                row = self.train_step()
                passed = time.perf_counter() - started, interrupt.asked
                self.seconds, asked = self.communicator.broadcast(passed)  # all go by the clock of one
                row["seconds"] = round(self.seconds, 3)

                if seconds is not None and self.seconds - looked > seconds / 50:
                    looked = self.seconds
                    self._correct_steps(seconds)
                last = self.step == self.settings.steps
                if last or self.step % self.settings.evaluate_every == 0:
                    row["validation_loss"] = self.validation_loss()
                if self.log is not None:
                    self.log.append(row)
                bar.advance(row, self.settings.steps)
                if last or asked or self.step % self.settings.checkpoint_every == 0:
                    self.save()
                if asked and not last:
                    raise KeyboardInterrupt

    def _correct_steps(self, seconds: float) -> None:
        """Plan as many more steps as the time that is left allows, at the mean pace of the run so far."""
        left = int((seconds - self.seconds) / self.seconds * self.step)
        steps = max(self.step + left, self.step, self.settings.warmup)
        self.settings = dataclasses.replace(self.settings, steps=steps)
        self.learning_rate = self.settings.learning_rates()

    def _open_folder(self) -> None:
        """Save what there is before the first step, and drop the log of steps that will be taken again."""
        newest = self.step
        if self.folder is not None:
            newest = max(checkpoints_in(self.folder / "checkpoints"), default=-1)
        if newest > self.step:
            raise CheckpointError(
                f"cannot go on from step {self.step} in {str(self.folder)!r}: it holds a checkpoint of step "
                f"{newest}; go on from that one, or remove those of later steps"
            )
        if self.communicator.broadcast(newest < self.step):
            self.save()
        if self.log is not None:
            self.log.cut(after=self.step)

    def train_step(self) -> dict[str, Any]:
        """Take one optimizer step and return its row for the log.

        Raises
        ------
        NonFiniteError
            If loss or gradient became NaN or infinite; the parameters are as before.
        """
        settings, each = self.settings, self.communicator
        self.optimizer.zero_grad()
        scale = self.loss_scale.value
        # what is not finite is found here, and told with its layer
        with numpy.errstate(all="ignore"), product_precision(settings.precision):
            first = self.step * settings.accumulate * each.size + each.rank
            batches = [self.task.batch(first + part * each.size) for part in range(settings.accumulate)]
            counts = [self.task.count(*batch) for batch in batches]
            total = each.sum(sum(counts))
            losses, drawn = [], []
            for batch, count in zip(batches, counts, strict=True):
                drawn.append(self.model.rng.bit_generator.state)
                losses.append(self.gradients.add(batch, scale * count / total))
            each.add_gradients(self.parameters)
            self.loss_scale.divide_out(self.parameters)
            norm = clip_grad_norm(self.parameters, settings.clip)
            norm, *losses = _on_host(norm, *losses)  # a GPU has worked on by itself up to here
            loss = each.sum(sum(losses)) / scale
            left_out = self.loss_scale.update(overflowed=not math.isfinite(norm))
            if not left_out and not (math.isfinite(loss) and math.isfinite(norm)):
                what = "the gradient" if math.isfinite(loss) else "the loss"
                part = next((i for i, part in enumerate(losses) if not math.isfinite(part)), -1)
                raise NonFiniteError(self._what_broke(what, self.step + 1, batches[part], drawn[part]))
        self.optimizer.lr = self.learning_rate(self.step)
        if not left_out:
            self.optimizer.step()
        self.step += 1
        return {
            "step": self.step,
            "loss": loss,
            "learning_rate": self.optimizer.lr,
            "gradient_norm": None if left_out else norm,
            "tokens": self.step * self.tokens_per_step,
        }

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step looks at."""
        return self.communicator.size * self.settings.accumulate * self.task.tokens_per_batch

    def validation_loss(self) -> float:
        """Return the task's loss on held-out data, in nats.

        Raises
        ------
        NonFiniteError
            If it is NaN or infinite.
        """
        with numpy.errstate(all="ignore"):
            loss = self.task.validation_loss(self.model)
            if not math.isfinite(loss):
                place = first_non_finite(self.model, lambda: self.task.validation_loss(self.model))
                raise NonFiniteError(_broken("the validation loss", self.step, place))
        return loss

    def save(self) -> Path | None:
        """Write a checkpoint, and return where.

        Raises
        ------
        NonFiniteError
            If a parameter is NaN or infinite; nothing is written.
        """
        each = self.communicator
        rng, *other_rngs = each.gather(self.model.rng.bit_generator.state)
        each.check_equal(self.model.parameters())
        written = None if self.folder is None else self._write(self.folder, rng, other_rngs)
        return each.broadcast(written)  # nobody goes on before it is there

    def _write(self, folder: Path, rng: Any, other_rngs: list[Any]) -> Path:
        for name, p in self.model.named_parameters():
            if not _finite(p):
                raise NonFiniteError(f"parameter {name} became NaN or infinite by step {self.step}{ADVICE}")
        state = {
            "settings": dataclasses.asdict(self.settings),
            "data": self.data,
            "rng": rng,
            "other_rngs": other_rngs,  # of the other processes
            "loss_scale": dataclasses.asdict(self.loss_scale),
            "seconds": self.seconds,
            "log": None if self.log is None else self.log.path.name,
        }
        return save_checkpoint(
            folder / "checkpoints",
            self.step,
            self.model,
            self.tokenizer,
            self.optimizer.state_dict(),
            state,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state of a checkpoint: weights, moments, step, random generator.

        Raises
        ------
        CheckpointError
            If the checkpoint belongs to another model or its state is damaged.
        """
        state, moments = checkpoint.state, checkpoint.optimizer_state()
        others = state.get("other_rngs", [])
        if not isinstance(others, list):
            raise CheckpointError(f"cannot go on from {str(checkpoint.path)!r}: other_rngs is {others!r}")
        if len(others) + 1 != self.communicator.size:
            go_on = COMMAND.format(size=len(others) + 1) if others else "tinytransformer"
            raise CheckpointError(
                f"cannot go on from {str(checkpoint.path)!r} with {self.communicator.size} processes: it was "
                f"begun with {len(others) + 1}, so go on with: {go_on}"
            )
        try:
            self.model.load_state_dict(checkpoint.model.state_dict())
            self.optimizer.load_state_dict(moments)
            self.model.rng.bit_generator.state = [state["rng"], *others][self.communicator.rank]
            self.loss_scale = LossScale(**state["loss_scale"])
            self.step, self.seconds = state["step"], float(state["seconds"])
            if not math.isfinite(self.seconds):
                raise ValueError(f"seconds are {self.seconds}")
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise CheckpointError(f"cannot go on from {str(checkpoint.path)!r}: {reason}") from None

    def _what_broke(self, what: str, step: int, batch: Batch, drawn: Any) -> str:
        """Say where; with the state that the random generator had, dropout is the same again."""
        self.model.rng.bit_generator.state = drawn
        place = first_non_finite(self.model, lambda: self.task.loss(self.model, *batch))
        return _broken(what, step, place)


def _on_host(*numbers: Any) -> list[float]:
    """Bring numbers to the host; it waits for a GPU once for all of them."""
    module = module_of(numbers[0])
    return [float(n) for n in (numbers if module is numpy else to_numpy(module.stack(numbers)))]


def _broken(what: str, step: int, place: str) -> str:
    return f"{what} became NaN or infinite at step {step}, first in {place}{ADVICE}"


def first_non_finite(model: Module, forward: Callable[[], Any]) -> str:
    """Name the first layer whose parameters or output are not finite.

    Parameters
    ----------
    model : Module
    forward : callable
        Runs the model.

    Returns
    -------
    str
        A parameter, or a layer, or if the forward pass is finite the gradient where the backward pass,
        which comes from the loss, broke first.

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> model = GPT(GPTConfig(vocab_size=7, context_length=5, d_model=8, num_heads=2))
    >>> model.blocks[1].norm2.weight.data[3] = numpy.inf
    >>> first_non_finite(model, lambda: model(numpy.zeros((2, 3), int)))
    'parameter blocks.1.norm2.weight'
    """
    for name, p in model.named_parameters():
        if not _finite(p):
            return f"parameter {name}"
    returned: list[tuple[str, bool]] = []  # layers as they returned, inner ones first, and whether finite

    def watching(name: str, layer_forward: Callable) -> Callable:
        def watched_forward(*args: Any, **kwargs: Any) -> Any:
            y = layer_forward(*args, **kwargs)
            returned.append((name, all(map(_finite, y if isinstance(y, tuple) else (y,)))))
            return y

        return watched_forward

    watched = [(name, m) for name, m in model.named_modules() if hasattr(m, "forward")]
    own = [vars(m).get("forward") for _, m in watched]  # where a module has one beside its class's
    try:
        for name, module in watched:
            module.forward = watching(name, module.forward)
        with no_grad(), numpy.errstate(all="ignore"):
            forward()
    finally:
        for (_, module), before in zip(watched, own, strict=True):
            del module.forward
            if before is not None:
                module.forward = before
    for name, finite in returned:
        if not finite:
            return f"layer {name or type(model).__name__}"

    last_return = {name: i for i, (name, _) in enumerate(returned)}

    def place(name: str) -> int:  # of the innermost layer around a parameter; the model itself may not run
        while name and name not in last_return:
            name = name.rpartition(".")[0]
        return last_return.get(name, len(returned))

    # the gradient came the other way: the parameter nearest to the loss broke first
    in_order = sorted(model.named_parameters(), key=lambda item: place(item[0]))
    for name, p in reversed(in_order):
        if p.grad is not None and not _finite(p.grad):
            return f"the gradient of {name}"
    return "the loss"


def _finite(value: Any) -> bool:
    return value is None or bool(numpy.isfinite(to_numpy(raw(value))).all())


def steps_within(seconds: float, model: Any, task: Task, settings: TrainingSettings, trials: int = 40) -> int:
    """Count the steps that fit into a time budget, by timing a few whose results are thrown away.

    Parameters
    ----------
    seconds : float
        For training alone.
    model : Module
        After the call parameters, gradients and random generator are as before.
    task : Task
    settings : TrainingSettings
    trials : int
        Steps to take; fewer if they would take an eighth of the budget. The median of the second half
        counts: the first steps are slower than those to come.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> from tinytransformer.tasks import LanguageModelling
    >>> model = GPT(GPTConfig(vocab_size=7, context_length=5, d_model=8, num_heads=2))
    >>> tokens = numpy.arange(40) % 7
    >>> task = LanguageModelling(tokens[:30], tokens[30:], batch_size=2, context=5)
    >>> steps_within(0.1, model, task, TrainingSettings()) >= 1
    True
    """
    rng_state = model.rng.bit_generator.state
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad()
    times: list[float] = []
    parallel = ParallelBatch(model, task, settings.threads)
    with parallel.working():
        while len(times) < trials and sum(times) < seconds / 8:
            start = time.perf_counter()
            for _ in range(settings.accumulate):
                parallel.add(task.batch(len(times)))
            clip_grad_norm(model.parameters(), settings.clip)
            times.append(time.perf_counter() - start)
            model.zero_grad()
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        p.grad = gradient
    model.rng.bit_generator.state = rng_state
    typical = statistics.median(times[len(times) // 2 :])
    return max(1, int(seconds / (1.06 * typical)))  # the optimizer and evaluations take their part


class _Interrupt:
    """Turn the first Ctrl-C into a request to stop after the step; the second one stops at once."""

    def __enter__(self) -> _Interrupt:
        self.asked = False
        self.in_main_thread = threading.current_thread() is threading.main_thread()
        if self.in_main_thread:  # Python delivers signals there alone
            self.previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_: object) -> None:
        if self.in_main_thread:
            signal.signal(signal.SIGINT, self.previous)


class _bar:  # noqa: N801
    """A progress bar with loss, tokens per second and time left."""

    def __init__(self, trainer: Trainer, shown: bool):
        from tqdm import tqdm

        self.per_step = trainer.tokens_per_step
        self.bar = tqdm(
            total=trainer.settings.steps,
            initial=trainer.step,
            unit="step",
            disable=not shown,
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps{postfix}, {remaining} left",
        )
        self.smooth: float | None = None
        self.validation: float | None = None

    def __enter__(self) -> _bar:
        return self

    def advance(self, row: dict[str, Any], steps: int) -> None:
        """Move on by the step of this row, towards this number of steps."""
        self.bar.total = steps
        self.smooth = row["loss"] if self.smooth is None else 0.95 * self.smooth + 0.05 * row["loss"]
        self.validation = row.get("validation_loss", self.validation)
        rate = self.bar.format_dict["rate"]
        parts = [f"loss {self.smooth:.3f}"]
        if self.validation is not None:
            parts.append(f"validation {self.validation:.3f}")
        if rate:
            parts.append(f"{rate * self.per_step:,.0f} tokens/s")
        self.bar.set_postfix_str(", ".join(parts), refresh=False)
        self.bar.update(1)

    def __exit__(self, *_: object) -> None:
        self.bar.close()
