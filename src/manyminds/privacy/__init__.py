"""Answers from which nobody can tell what one source said. Pure: knows no expert, no network, no clock."""

__all__: list[str] = []
