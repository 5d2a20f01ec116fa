"""Modules: parameters and the formulas they go into, with PyTorch's names."""

from . import lora
from .attention import KeyValueCache, MultiHeadAttention
from .checkpointing import checkpoint, gradient_checkpointing
from .layers import Dropout, Embedding, FeedForward, GatedFeedForward, LayerNorm, Linear, RMSNorm
from .module import Module, ModuleList, Parameter, Sequential
from .transformer import TransformerDecoderLayer, TransformerEncoderLayer

__all__ = [
    "Dropout",
    "Embedding",
    "FeedForward",
    "GatedFeedForward",
    "KeyValueCache",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "MultiHeadAttention",
    "Parameter",
    "RMSNorm",
    "Sequential",
    "TransformerDecoderLayer",
    "TransformerEncoderLayer",
    "checkpoint",
    "gradient_checkpointing",
    "lora",
]
