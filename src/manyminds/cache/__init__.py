"""Answers that were given before: to the very same request, and to the same question in other words."""

from manyminds.cache.store import POLICIES, SIMILARITY, Cache, Hit, Lookup
from manyminds.cache.wording import wording

__all__ = ["POLICIES", "SIMILARITY", "Cache", "Hit", "Lookup", "wording"]
