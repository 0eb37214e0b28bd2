"""Asking experts: a panel at once, one alone, or all for each token. Knows no wire format and no combiner."""

from manyminds.fanout.calls import Fanout
from manyminds.fanout.patience import Patience
from manyminds.fanout.single import Single
from manyminds.fanout.tokens import Tokens

__all__ = ["Fanout", "Patience", "Single", "Tokens"]
