"""Hypothesis: no time limit on an example; `pytest --hypothesis-profile=thorough` tries 5,000 of each.

Linear algebra: one thread for each process. There is a worker for each core already, and more threads than
cores wait for one another by spinning.

onnxruntime: reports to nobody, also where a test imports it before the encoder does.

Bytecode: kept, whatever the environment says. Hundreds of processes that tests start would compile all anew.

Garbage: what is here once tests are found stays to the end. No collection need look through all of that.
"""

import gc
import os
import sys

import pytest
from hypothesis import HealthCheck, settings

from tests.learn.quick import weigh_quickly

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5000)
settings.load_profile("default")

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read when numpy and scipy are first imported
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False


@pytest.fixture
def weighed_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    weigh_quickly(monkeypatch)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
