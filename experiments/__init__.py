"""Experiments: each a folder that makes its own data, trains, measures and prints what it found."""

__all__: list[str] = []
