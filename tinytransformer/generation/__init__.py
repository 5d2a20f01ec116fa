"""Text from a language model: greedy, sampled, or by beam search.

A model here is anything that scores the next token: see `LanguageModel` for what it has to offer.
"""

from .beam import Hypothesis, beam_search
from .decoding import LanguageModel, generate, stream
from .sampling import next_token_probabilities

__all__ = ["Hypothesis", "LanguageModel", "beam_search", "generate", "next_token_probabilities", "stream"]
