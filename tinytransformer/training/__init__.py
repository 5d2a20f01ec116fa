"""Training: the loop, the log, checkpoints, evaluation."""

from .checkpoint import (
    Checkpoint,
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from .distributed import Communicator, communicator
from .evaluation import Score, evaluate, evaluating, ngram_scores
from .log import Log
from .task import Batch, Task
from .trainer import NonFiniteError, Trainer, TrainingSettings, first_non_finite, steps_within

__all__ = [
    "Batch",
    "Checkpoint",
    "CheckpointError",
    "Communicator",
    "Log",
    "NonFiniteError",
    "Score",
    "Task",
    "Trainer",
    "TrainingSettings",
    "communicator",
    "evaluate",
    "evaluating",
    "first_non_finite",
    "latest_checkpoint",
    "load_checkpoint",
    "ngram_scores",
    "save_checkpoint",
    "steps_within",
]
