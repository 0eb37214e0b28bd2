"""Do small language models, each trained on one domain, know together more than one large one?"""

__all__: list[str] = []
