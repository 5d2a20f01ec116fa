"""What the commands share: the application, options, values from a file, and errors of one line."""

from __future__ import annotations

import inspect
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from ..backend import use_backend

TOML_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", Path: "a string"}

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train and use language models that can be read from top to bottom.",
)


class UsageError(ValueError):
    """Something the user can put right; shown as one line, exit code 2."""


def configured(invocation: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of the options; options given on the line win."""
    if path is None or invocation.resilient_parsing:
        return path
    file = f"the configuration {str(path)!r}"
    try:
        found = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested too deep
        raise UsageError(f"{file} is not valid TOML: {error}") from None
    options = {
        p.opts[0].lstrip("-"): p.name
        for p in invocation.command.params
        if p.param_type_name == "option" and p.name not in ("config", "help")
    }
    if unknown := sorted(found.keys() - options.keys()):
        raise UsageError(f"{file} has no meaning for {unknown[0]!r}; known are {', '.join(sorted(options))}")
    command: Any = invocation.command.callback
    hints = get_type_hints(inspect.unwrap(command))
    for name, value in found.items():
        hint = hints[options[name]]
        kind = next(k for k in TOML_KINDS if k is hint or k in get_args(hint))
        if type(value) not in {float: (int, float), Path: (str,)}.get(kind, (kind,)):
            raise UsageError(f"{file}: {name} must be {TOML_KINDS[kind]}, not {value!r}")
    values = {options[name]: value for name, value in found.items()}
    invocation.default_map = {**(invocation.default_map or {}), **values}
    return path


def given(invocation: typer.Context, *names: str, but: tuple[str, ...] = ()) -> str:
    """Name those options that were given: of these, or of all but some."""
    options = {p.name: p.opts[0] for p in invocation.command.params if p.name not in but}
    asked = names or options
    sources = {name: invocation.get_parameter_source(name) for name in options if name in asked}
    return ", ".join(options[name] for name, source in sources.items() if source and source.name != "DEFAULT")


def chosen_backend(name: str | None) -> str | None:
    """Use the backend that ``--backend`` names, if it is given."""
    if name is not None:
        use_backend(name)
    return name


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=configured,
        help="TOML file with values for these options, such as  batch-size = 16.",
    ),
]
BackendOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", callback=chosen_backend, help="numpy, or cupy for a GPU."),
]
TWO_CORES = min(2, os.cpu_count() or 1)
ThreadsOption = Annotated[
    int, typer.Option(min=1, help="Cores that share a batch; with 1 BLAS divides products.")
]
AccumulateOption = Annotated[int, typer.Option(min=1, help="Batches added up for one step.")]
CheckpointingOption = Annotated[
    bool, typer.Option("--gradient-checkpointing", help="Compute activations twice: less memory, more time.")
]
PrecisionOption = Annotated[
    str, typer.Option(help="Of matrix products: float32, tf32 or float16; for a GPU.")
]


def one_of(option: str, value: str, *allowed: str) -> None:
    """Refuse a value that is none of those allowed."""
    if value not in allowed:
        raise UsageError(f"{option} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {value!r}")


def summary(model: Any) -> str:
    """Describe a model in a line: its sizes, parameters and memory."""
    c = model.config
    stacks = ("num_encoder_layers", "num_layers", "num_decoder_layers")
    layers = " + ".join(str(getattr(c, name)) for name in stacks if hasattr(c, name))
    longest = [
        getattr(c, name) for name in ("context_length", "max_positions", "max_length") if hasattr(c, name)
    ]
    number = model.num_parameters()
    size = next(iter(model.parameters())).dtype.itemsize
    return (
        f"{type(model).__name__}, {layers} layers, {c.num_heads} heads, {c.d_model} features"
        f"{''.join(f', context {n}' for n in longest)}: {number:,} parameters, {number * size / 1e6:.1f} MB, "
        f"and {4 * number * size / 1e6:.1f} MB with gradients and moments"
    )
