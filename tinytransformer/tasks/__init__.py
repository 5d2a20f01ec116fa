"""What models are trained for: each task with its data, its metric and a trivial baseline."""

from .classification import Classification
from .finetuning import FineTuning, TaskData, fine_tuning_optimizer, read_rows, split_rows
from .pretraining import LanguageModelling, MaskedLanguageModelling, SpanCorruption
from .question_answering import QuestionAnswering
from .summarization import Summarization
from .translation import Translation

__all__ = [
    "TASKS",
    "Classification",
    "FineTuning",
    "LanguageModelling",
    "MaskedLanguageModelling",
    "QuestionAnswering",
    "SpanCorruption",
    "Summarization",
    "TaskData",
    "Translation",
    "fine_tuning_optimizer",
    "read_rows",
    "split_rows",
]

TASKS: dict[str, type[FineTuning]] = {
    "classify": Classification,
    "qa": QuestionAnswering,
    "summarize": Summarization,
    "translate": Translation,
}
