"""Texts to unit vectors: the sentence encoder, and a table distilled from it for the fast path."""

from manyminds.encoder.minilm import Encoder
from manyminds.encoder.static import StaticEncoder, distil
from manyminds.encoder.wordpiece import WordPiece

__all__ = ["Encoder", "StaticEncoder", "WordPiece", "distil"]
