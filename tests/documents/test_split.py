"""Blocks to paragraphs: nothing lost, nothing too long, the same every time."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from manyminds.documents.split import LONGEST, Block, Paragraph, split

headings = st.lists(st.sampled_from(["A", "B  b", "", "long " * 80]), max_size=4).map(tuple)
words = st.text(st.sampled_from("ab.!? \n\t,;é界。"), max_size=3_000)
blocks = st.lists(st.builds(Block, headings, words), max_size=8)


def bare(texts: list[str]) -> str:
    return "".join("".join(text.split()) for text in texts)


@given(blocks)
def test_no_text_is_lost_and_none_is_too_long(made: list[Block]) -> None:
    paragraphs = split(made)
    assert bare([paragraph.text for paragraph in paragraphs]) == bare([block.text for block in made])
    assert all(0 < len(paragraph.text) <= LONGEST for paragraph in paragraphs)
    assert all(len(paragraph.heading) <= 300 for paragraph in paragraphs)
    assert paragraphs == split(made)


@given(blocks)
def test_neighbours_are_short_only_where_they_do_not_fit(made: list[Block]) -> None:
    paragraphs = split(made)
    for one, other in pairwise(paragraphs):
        if one.heading == other.heading and not any(block.text.strip() == "" for block in made):
            assert len(one.text) + len(other.text) + 1 > 400


def test_short_blocks_under_one_heading_are_joined() -> None:
    made = split([Block(("A",), "One."), Block(("A",), "Two."), Block(("A", "B"), "Three.")])
    assert made == [Paragraph("A", "One.\nTwo."), Paragraph("A > B", "Three.")]


def test_long_blocks_are_cut_at_the_ends_of_sentences() -> None:
    sentence = "This is a sentence of some length that ends here. "
    made = split([Block((), sentence * 40)])
    assert len(made) == 3
    assert all(paragraph.text.endswith("ends here.") for paragraph in made)
    assert max(len(p.text) for p in made) - min(len(p.text) for p in made) < 120


def test_code_keeps_its_indentation() -> None:
    text = "    def m(self):\n        return 1"
    assert split([Block(("m",), text)]) == [Paragraph("m", text)]


def test_of_too_many_headings_the_innermost_stay() -> None:
    made = split([Block(("outer " * 40, "middle " * 40, "inner"), "Text.")])
    assert made[0].heading.endswith(" m > inner")
    assert made[0].heading.startswith("outer")
    deep = split([Block(tuple(f"{i} " * 50 for i in range(9)), "Text.")])
    assert deep[0].heading.endswith("8")
    assert len(deep[0].heading) <= 300
