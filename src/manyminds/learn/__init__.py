"""How a network learns from outcomes: plain numbers in, an artefact out."""

__all__: list[str] = []
