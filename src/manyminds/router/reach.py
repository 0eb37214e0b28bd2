"""How near the nearest paragraph of documents lies, of which only summaries are known. Pure.

A summary is the mean of the vectors of paragraphs that are alike: the closer they lie, the longer it is.
"""

import math
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from manyminds.types import Vectors

__all__ = ["reach"]

_DIMENSIONS: Final = 32.0
"""In which paragraphs of a summary differ, as if evenly: with so many the cosine that is foretold is right on
average, of calibration questions and who knows (`manyminds bench documents --fit`)."""
_MOST: Final = 0.2  # of cosine that paragraphs can be nearer than their summary: who claims many is no nearer


def reach(
    question: "Vectors", summaries: "Vectors", paragraphs: int, dimensions: float = _DIMENSIONS
) -> float:
    """The cosine of a question and the paragraph that is nearest to it, as it is to be expected.

    Of n vectors with mean r c, where c is of length 1 and r at most that, and what they differ by from it is
    even in so many dimensions, the largest of n draws is expected at about r s + (1 - r²)^½ (1 - s²)^½
    (2 ln n / dimensions)^½, where s is the cosine of question and c.

    Args:
        question: (d,) of length 1.
        summaries: (k, d), none of length 0; a longer one than 1 counts as that.
        paragraphs: of all of them; each summary is taken to have as many as the others.
        dimensions: see above.
    """
    lengths = np.linalg.norm(summaries, axis=1)
    cosines = np.clip(summaries @ question / lengths, -1.0, 1.0)
    tight = np.minimum(lengths, 1.0)
    apart = math.sqrt(2.0 * math.log(max(paragraphs / len(summaries), 1.0)) / dimensions)
    nearest = tight * cosines + np.sqrt(1.0 - tight**2) * np.sqrt(1.0 - cosines**2) * apart
    return float(np.minimum(nearest, cosines + _MOST).max())
