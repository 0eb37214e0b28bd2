"""The only wiring: turns a configuration into a running gateway, and takes over another one."""

from manyminds.node.accounts import ACCOUNTS
from manyminds.node.learnt import ARTEFACT, GROWN, NEWCOMERS, base, knowledge, learnt
from manyminds.node.models import LocalModel, estimate_mb, local_models
from manyminds.node.node import Node
from manyminds.node.origins import Origin, origin
from manyminds.node.roster import Shared
from manyminds.node.wiring import ENCODER

__all__ = [
    "ACCOUNTS",
    "ARTEFACT",
    "ENCODER",
    "GROWN",
    "NEWCOMERS",
    "LocalModel",
    "Node",
    "Origin",
    "Shared",
    "base",
    "estimate_mb",
    "knowledge",
    "learnt",
    "local_models",
    "origin",
]
