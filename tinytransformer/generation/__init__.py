"""Text from a language model: greedy, sampled, by beam search, or in a conversation.

A model here is anything that scores the next token: see `LanguageModel` for what it has to offer.
"""

from .beam import Hypothesis, beam_search
from .chat import ChatML, Conversation, PlainText, decoded
from .decoding import LanguageModel, generate, stream
from .sampling import next_token_probabilities

__all__ = [
    "ChatML",
    "Conversation",
    "Hypothesis",
    "LanguageModel",
    "PlainText",
    "beam_search",
    "decoded",
    "generate",
    "next_token_probabilities",
    "stream",
]
