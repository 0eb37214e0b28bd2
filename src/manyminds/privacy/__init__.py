"""What private answers cost, and the noise that makes them private. Pure; knows no expert and no request."""

__all__: list[str] = []
