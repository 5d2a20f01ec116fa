"""The course: exercises in plain NumPy, and checks that name the mistake."""

from .checking import Result, check, mark
from .exercise import Exercise, Say, all_exercises, find_exercise
from .sandbox import Seed
from .speaking import label, language, reveal, say

__all__ = [
    "Exercise",
    "Result",
    "Say",
    "Seed",
    "all_exercises",
    "check",
    "find_exercise",
    "label",
    "language",
    "mark",
    "reveal",
    "say",
]
