"""Texts of seven real domains out of published packages, without near-duplicates, split by file."""

from experiments.specialists.corpora.mixture import Mixed, mixed
from experiments.specialists.corpora.reader import Document
from experiments.specialists.corpora.sources import DOMAINS, NEWCOMER, Package
from experiments.specialists.corpora.split import Corpus
from experiments.specialists.corpora.store import build
from experiments.specialists.corpora.supply import fetch

__all__ = ["DOMAINS", "NEWCOMER", "Corpus", "Document", "Mixed", "Package", "build", "fetch", "mixed"]
