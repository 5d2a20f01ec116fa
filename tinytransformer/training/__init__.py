"""Training: the loop, the log, checkpoints, evaluation."""

from .checkpoint import (
    Checkpoint,
    CheckpointError,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from .evaluation import Score, evaluate, ngram_scores
from .log import Log
from .trainer import NonFiniteError, Trainer, TrainingSettings, first_non_finite, steps_within

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Log",
    "NonFiniteError",
    "Score",
    "Trainer",
    "TrainingSettings",
    "evaluate",
    "first_non_finite",
    "latest_checkpoint",
    "load_checkpoint",
    "ngram_scores",
    "save_checkpoint",
    "steps_within",
]
