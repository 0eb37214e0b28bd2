"""An owner's documents: read, split into paragraphs, indexed, found again. Knows no expert and no network.

What they say is the owner's, and untrusted: it is read in a process of its own, and never obeyed.
"""

from manyminds.documents.library import Library
from manyminds.documents.nouns import Document, Found, Passage, Profile, Synced, counted
from manyminds.documents.watch import watch

__all__ = ["Document", "Found", "Library", "Passage", "Profile", "Synced", "counted", "watch"]
