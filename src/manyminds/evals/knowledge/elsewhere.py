"""Questions of topics that no corpus covers. What is asked may be so or not: no document here can tell."""

from typing import Final

from manyminds.evals.knowledge.facts import draw

__all__ = ["topics"]

_MATCHES: Final = ("Benfica and Celtic", "Ajax and Porto", "Leeds and Everton", "Boca Juniors and Santos")
_FILMS: Final = ("The Third Man", "Rashomon", "Metropolis", "City Lights", "The Seventh Seal", "La Strada")
_NOVELS: Final = ("Middlemarch", "The Leopard", "Dead Souls", "Buddenbrooks", "Nostromo", "Effi Briest")
_DISHES: Final = ("moussaka", "ratatouille", "borscht", "tiramisu", "goulash", "gazpacho")
_SONGS: Final = ("Yesterday", "Hallelujah", "Blue Moon", "Summertime", "La Vie en rose", "Autumn Leaves")
_ILLS: Final = ("scurvy", "whooping cough", "gout", "measles", "shingles", "anaemia")
_BREEDS: Final = ("whippet", "Irish wolfhound", "beagle", "Newfoundland dog", "dachshund", "saluki")
_PAINTINGS: Final = ("The Night Watch", "Guernica", "Las Meninas", "The Hay Wain", "Olympia", "The Kiss")
_GAMES: Final = ("backgammon", "mahjong", "cribbage", "go", "draughts", "whist")
_BATTLES: Final = ("Hastings", "Lepanto", "Waterloo", "Poltava", "Cannae", "Agincourt")

_TOPICS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "score": (
        _MATCHES,
        (
            "What was the score when {name} last played each other?",
            "Who won the football match between {name}?",
            "{name} final result goals",
        ),
    ),
    "director": (
        _FILMS,
        ("Who directed the film {name}?", "{name} movie director", "By whom was the picture {name} made?"),
    ),
    "novelist": (
        _NOVELS,
        ("Who wrote the novel {name}?", "{name} book author", "From whose pen did {name} come?"),
    ),
    "oven": (
        _DISHES,
        (
            "How long does {name} have to cook?",
            "Minutes needed on the stove for {name}",
            "When I make {name} at home, for what time should it be heated?",
        ),
    ),
    "singer": (
        _SONGS,
        (
            "Who first recorded the song {name}?",
            "{name} original singer",
            "Which artist was the earliest to sing {name} on a record?",
        ),
    ),
    "remedy": (
        _ILLS,
        ("How is {name} treated?", "Best medicine against {name}", "What does a doctor give for {name}?"),
    ),
    "weight": (
        _BREEDS,
        (
            "How heavy does a grown {name} get?",
            "{name} adult weight",
            "What would the scales show for a full-grown {name}?",
        ),
    ),
    "painter": (
        _PAINTINGS,
        (
            "Who painted {name}?",
            "{name} artist of the canvas",
            "Whose brush does the picture {name} come from?",
        ),
    ),
    "players": (
        _GAMES,
        (
            "How many people can play {name} together?",
            "{name} number of players",
            "For a round of {name}, what is the largest company at the table?",
        ),
    ),
    "victor": (
        _BATTLES,
        (
            "Who commanded the winning side in the battle of {name}?",
            "Battle of {name} victorious general",
            "Under whose lead was the fight at {name} won?",
        ),
    ),
}


def topics(seed: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """What is asked about, which fact of it, and the wordings; in an order of the seed's."""
    every = [
        (name, key, tuple(text.format(name=name) for text in asked))
        for key, (names, asked) in _TOPICS.items()
        for name in names
    ]
    return draw(seed, "topics").sample(every, len(every))
