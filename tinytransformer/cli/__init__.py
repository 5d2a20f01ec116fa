"""The command line: one file for each kind of command."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from .. import __version__
from ..backend import BackendError
from .app import app

# isort: off - each adds its commands to the app, in the order in which --help lists them
from . import train, use, pretrain, finetune, predict, export, chat, embed, fill_mask, course, doctor  # noqa: F401
# isort: on

__all__ = ["main"]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tinytransformer {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a problem the user can put right is one line and exit code 2."""
    from ..training import NonFiniteError
    from ..training.distributed import processes

    click_exception: Any = typer.BadParameter.__mro__[2]  # ClickException, wherever this typer keeps it
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a sample may hold what the terminal cannot show
    arguments = sys.argv[1:] if arguments is None else arguments
    if processes() > 1 and arguments[:1] not in (["train"], ["pretrain"]):
        _fail("several processes can share the commands train and pretrain alone: leave out mpiexec", 2)
    try:
        code = app(args=arguments or ["--help"], standalone_mode=False)
    except click_exception as error:
        _fail(error.format_message(), error.exit_code)
    except (BackendError, ValueError, IndexError, OverflowError) as error:
        if os.environ.get("TINYTRANSFORMER_TRACEBACK"):
            raise
        _fail(str(error), 2)
    except (NonFiniteError, ChildProcessError) as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("there is not enough memory: use a smaller model, batch or context", 1)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)
