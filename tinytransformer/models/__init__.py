"""Language models, one file each."""

from .bert import BERT, BERTConfig, BERTOutput
from .bert_heads import (
    BERTForMaskedLM,
    BERTForNextSentence,
    BERTForPretraining,
    BERTForQuestionAnswering,
    BERTForSequenceClassification,
    BERTForTokenClassification,
    BERTPretrainingOutput,
    BERTSpanOutput,
)
from .blank import blank
from .gpt import GPT, GPTConfig
from .ngram import NGram
from .source import GivenSource
from .t5 import T5, T5Config
from .transformer import Transformer, TransformerConfig

__all__ = [
    "BERT",
    "GPT",
    "T5",
    "BERTConfig",
    "BERTForMaskedLM",
    "BERTForNextSentence",
    "BERTForPretraining",
    "BERTForQuestionAnswering",
    "BERTForSequenceClassification",
    "BERTForTokenClassification",
    "BERTOutput",
    "BERTPretrainingOutput",
    "BERTSpanOutput",
    "GPTConfig",
    "GivenSource",
    "NGram",
    "T5Config",
    "Transformer",
    "TransformerConfig",
    "blank",
]
