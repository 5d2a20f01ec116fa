"""What BERT is trained and used for: its encoder with a head for each task (document section 5.1)."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy

from ..autograd import raw
from ..backend import module_of, to_numpy, xp
from ..formulas import cross_entropy, linear
from ..nn import Dropout, LayerNorm, Linear, Module, Parameter
from ..ops import take
from ..tensor import Tensor
from .bert import ACTIVATIONS, BERT, BERTConfig, BERTOutput, initialize
from .pretrained import PretrainedModel

__all__ = [
    "BERTForMaskedLM",
    "BERTForNextSentence",
    "BERTForPretraining",
    "BERTForQuestionAnswering",
    "BERTForSequenceClassification",
    "BERTForTokenClassification",
    "BERTPretrainingOutput",
    "BERTSpanOutput",
]


class BERTPretrainingOutput(NamedTuple):
    """Logits of the tokens (batch, T, V), and of "b follows a" (0) and "b is random" (1), (batch, 2)."""

    logits: Tensor
    next_sentence_logits: Tensor


class BERTSpanOutput(NamedTuple):
    """Logits (batch, T) of each token to be the first, and the last, of the answer."""

    start_logits: Tensor
    end_logits: Tensor


class MaskedLMHead(Module):
    r"""Score each token of the vocabulary by its embedding: the output matrix is the input's.

    .. math:: z = \mathrm{LN}(\varphi(hW + b)) E^T + c
    """

    def __init__(self, config: BERTConfig, *, rng: numpy.random.Generator, dtype: Any):
        size = config.embedding_size or config.d_model  # of the embeddings
        self.dense = Linear(config.d_model, size, rng=rng, dtype=dtype)
        self.norm = LayerNorm(size, config.layer_norm_eps, dtype=dtype)
        self.bias = Parameter(xp.zeros(config.vocab_size, dtype))
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, hidden: Any, E: Any) -> Any:
        """Map hidden states (..., d_model) to logits (..., V), given the token embeddings E (V, size)."""
        return linear(self.norm(self.activation(self.dense(hidden))), E.mT, self.bias)

    def loss(self, hidden: Any, E: Any, labels: Any) -> Any:
        """Mean cross-entropy of the labels (batch, T); only those that count cost their V logits."""
        y = to_numpy(raw(labels))
        if y.shape != tuple(hidden.shape[:2]):
            raise ValueError(f"BERT: labels of shape {y.shape} for tokens of shape {tuple(hidden.shape[:2])}")
        chosen = numpy.flatnonzero(y != -100)  # (N,)
        rows = hidden.reshape(-1, hidden.shape[-1])  # (batch T, d_model)
        rows = take(rows, module_of(raw(hidden)).asarray(chosen), axis=0)  # (N, d_model)
        return cross_entropy(self(rows, E), y.reshape(-1)[chosen])


class _BERTWithHead(PretrainedModel):
    """An encoder and, in each subclass, a head.

    Parameters
    ----------
    config : BERTConfig
        Sizes and switches.
    rng : numpy.random.Generator, optional
        Draws the initial parameters, and later the dropout; that of the encoder, if one is given.
    dtype : dtype
        Of the parameters; that of the encoder, if one is given.
    encoder : BERT, optional
        A trained encoder to go on with, shared and not copied; its config may differ in ``num_labels``. To
        train the head alone, freeze it: ``model.encoder.requires_grad_(False)``.

    Raises
    ------
    ValueError
        If the encoder has other sizes, or no pooler where the head needs one.
    """

    pools = False  # whether the head looks at the pooled output

    def __init__(
        self,
        config: BERTConfig,
        rng: numpy.random.Generator | None = None,
        dtype: Any = "float32",
        encoder: BERT | None = None,
    ):
        name = type(self).__name__
        if encoder is None:
            encoder = BERT(config, rng, dtype, pooler=self.pools)
        if dataclasses.replace(encoder.config, num_labels=config.num_labels) != config:
            raise ValueError(f"{name}: the encoder is that of {encoder.config}, not of {config}")
        if self.pools and encoder.pooler is None:
            raise ValueError(f"{name}: the head needs the pooled output; make the encoder with pooler=True")
        self.config = config
        self.rng = encoder.rng
        self.encoder = encoder
        self._add_head({"rng": encoder.rng, "dtype": encoder.token_embedding.weight.dtype})
        for part in list(vars(self).values()):
            if isinstance(part, Module) and part is not encoder:
                initialize(part, self.rng)

    def _add_head(self, made: dict[str, Any]) -> None:
        """Make the layers on top of the encoder."""
        raise AttributeError(f"{type(self).__name__} defines no _add_head()")

    def _logits(self, output: BERTOutput) -> Any:
        """Score, given what the encoder returned."""
        raise AttributeError(f"{type(self).__name__} defines no _logits()")

    def _loss(self, output: BERTOutput, labels: Any) -> Tensor:
        return cross_entropy(self._logits(output), labels)

    def forward(
        self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, positions: Any = None
    ) -> Any:
        """Return the logits that the class describes; the arguments are those of `BERT`."""
        return self._logits(self.encoder(input_ids, attention_mask, token_type_ids, positions))

    def loss(
        self,
        input_ids: Any,
        labels: Any,
        attention_mask: Any = None,
        token_type_ids: Any = None,
        positions: Any = None,
    ) -> Tensor:
        """Return the mean cross-entropy of the labels that the class describes; -100 does not count."""
        return self._loss(self.encoder(input_ids, attention_mask, token_type_ids, positions), labels)


class BERTForMaskedLM(_BERTWithHead):
    """Guess masked tokens: logits and labels are of the tokens, (batch, T, V) and (batch, T).

    ``tinytransformer.text.mask_tokens`` makes inputs and labels. The output matrix is the token embedding.

    Examples
    --------
    >>> model = BERTForMaskedLM(BERTConfig(vocab_size=11, d_model=12, num_layers=2, num_heads=3, d_ff=24))
    >>> model([[3, 1, 4, 1, 5]]).shape
    (1, 5, 11)
    >>> loss = model.loss([[3, 1, 4, 1, 5]], labels=[[-100, 9, -100, -100, 5]])
    """

    def _add_head(self, made: dict[str, Any]) -> None:
        self.masked_lm = MaskedLMHead(self.config, **made)

    def _logits(self, output: BERTOutput) -> Any:
        return self.masked_lm(output.hidden, self.encoder.token_embedding.weight)

    def _loss(self, output: BERTOutput, labels: Any) -> Tensor:
        return self.masked_lm.loss(output.hidden, self.encoder.token_embedding.weight, labels)


class BERTForNextSentence(_BERTWithHead):
    """Tell whether sentence b follows a (0) or is random (1): logits (batch, 2), labels (batch,)."""

    pools = True

    def _add_head(self, made: dict[str, Any]) -> None:
        self.next_sentence = Linear(self.config.d_model, 2, **made)

    def _logits(self, output: BERTOutput) -> Any:
        return self.next_sentence(output.pooled)


class BERTForPretraining(_BERTWithHead):
    """Both objectives at once: a `BERTPretrainingOutput`, and as labels those of tokens and of pairs.

    The loss is the sum of the two. ``tinytransformer.text.sentence_pairs`` makes the pairs.

    Examples
    --------
    >>> config = BERTConfig(vocab_size=11, d_model=12, num_layers=2, num_heads=3, d_ff=24)
    >>> model = BERTForPretraining(config)
    >>> loss = model.loss([[3, 1, 4, 1, 5]], labels=([[-100, 9, -100, -100, 5]], [0]))
    >>> classifier = BERTForSequenceClassification(config, encoder=model.encoder)
    """

    pools = True

    def _add_head(self, made: dict[str, Any]) -> None:
        self.masked_lm = MaskedLMHead(self.config, **made)
        self.next_sentence = Linear(self.config.d_model, 2, **made)

    def _logits(self, output: BERTOutput) -> BERTPretrainingOutput:
        logits = self.masked_lm(output.hidden, self.encoder.token_embedding.weight)
        return BERTPretrainingOutput(logits, self.next_sentence(output.pooled))

    def _loss(self, output: BERTOutput, labels: Any) -> Tensor:
        masked, next_sentence = labels
        loss = self.masked_lm.loss(output.hidden, self.encoder.token_embedding.weight, masked)
        return loss + cross_entropy(self.next_sentence(output.pooled), next_sentence)


class BERTForSequenceClassification(_BERTWithHead):
    """Choose a class for each text: logits (batch, num_labels), labels (batch,)."""

    pools = True

    def _add_head(self, made: dict[str, Any]) -> None:
        self.dropout = Dropout(self.config.dropout, rng=self.rng)
        self.classifier = Linear(self.config.d_model, self.config.num_labels, **made)

    def _logits(self, output: BERTOutput) -> Any:
        return self.classifier(self.dropout(output.pooled))


class BERTForTokenClassification(_BERTWithHead):
    """Choose a class for each token: logits (batch, T, num_labels), labels (batch, T)."""

    def _add_head(self, made: dict[str, Any]) -> None:
        self.dropout = Dropout(self.config.dropout, rng=self.rng)
        self.classifier = Linear(self.config.d_model, self.config.num_labels, **made)

    def _logits(self, output: BERTOutput) -> Any:
        return self.classifier(self.dropout(output.hidden))


class BERTForQuestionAnswering(_BERTWithHead):
    """Find the answer in a text: a `BERTSpanOutput`, and as labels the first and last token, (batch, 2).

    The loss is the mean of both.

    Examples
    --------
    >>> config = BERTConfig(vocab_size=11, d_model=12, num_layers=2, num_heads=3, d_ff=24)
    >>> model = BERTForQuestionAnswering(config)
    >>> start_logits, end_logits = model([[3, 1, 4, 1, 5]])
    >>> start_logits.shape, end_logits.shape
    ((1, 5), (1, 5))
    """

    def _add_head(self, made: dict[str, Any]) -> None:
        self.span = Linear(self.config.d_model, 2, **made)

    def _logits(self, output: BERTOutput) -> BERTSpanOutput:
        logits = self.span(output.hidden)  # (batch, T, 2)
        return BERTSpanOutput(logits[..., 0], logits[..., 1])

    def _loss(self, output: BERTOutput, labels: Any) -> Tensor:
        start, end = self._logits(output)
        places = to_numpy(raw(labels))  # (batch, 2)
        return (cross_entropy(start, places[:, 0]) + cross_entropy(end, places[:, 1])) / 2
