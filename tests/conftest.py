"""Hypothesis: no time limit on an example; `pytest --hypothesis-profile=thorough` tries 5,000 of each."""

from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("default"), max_examples=5000)
settings.load_profile("default")
