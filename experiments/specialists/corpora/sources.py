"""What each domain is made of: packages, pinned, and which of their files. Knows no disk and no network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["DOMAINS", "NEWCOMER", "RECIPES", "Package", "Recipe", "recipes_of"]

DOMAINS: Final = ("c", "french", "german", "json", "legal", "python")
NEWCOMER: Final = "japanese"


@dataclass(frozen=True, slots=True)
class Package:
    """One package. Version, size and hash are those of the published run; what was served may differ.

    A wheel is always the pinned one. Of a Debian package, mirrors serve what their release has now.
    """

    name: str
    version: str
    sha256: str
    licence: str
    kind: Literal["deb", "wheel"]
    size_bytes: int
    served_version: str = ""  # empty until it was looked for on disk
    served_sha256: str = ""

    @property
    def is_pinned(self) -> bool:
        """Whether what was served is what the published run had."""
        return self.served_sha256 == self.sha256


@dataclass(frozen=True, slots=True)
class Recipe:
    """A domain's packages, and which of their members are its documents.

    `member` is a regular expression that a whole path matches. `form` says what is taken off a file before
    it is text: "gzip" its compression, "licence" its YAML head, "man" its compression and declared coding.
    """

    domain: str
    packages: tuple[Package, ...]
    member: str
    form: Literal["gzip", "licence", "man", "plain"]


def _manuals(domain: str, tag: str, *packages: Package) -> Recipe:
    return Recipe(domain, packages, rf"usr/share/man/{tag}/man\d\w*/[^/]+\.gz", "man")


_MANPAGES_L10N: Final = "GPL-3.0-or-later for translations; each page also under its original's free licence"
_MANPAGES_JA: Final = "free, of each page its own; see usr/share/doc/manpages-ja/copyright"

RECIPES: Final[dict[str, Recipe]] = {
    "c": Recipe(
        "c",
        (
            Package(
                "gcc-12-plugin-dev",
                "12.2.0-14+deb12u1",
                "252c1b616c143faed0f73d61ca119d74528e5f804dee2c8ab6702b319d81da3f",
                "GPL-3.0-or-later",
                "deb",
                1_393_484,
            ),
            Package(
                "libgtk-3-dev",
                "3.24.38-2~deb12u3",
                "bee025c618f766efa7fcea039b8072b5b57e7fc1482ab8b0d6ad3b93204d5dd4",
                "LGPL-2.0-or-later",
                "deb",
                1_116_296,
            ),
            Package(
                "libgtk-4-dev",
                "4.8.3+ds-2+deb12u1",
                "017e85f06bf12b349741d452a9991418010b73429f6b87f35364285e284a2d55",
                "LGPL-2.0-or-later",
                "deb",
                888_064,
            ),
            Package(
                "libsdl2-dev",
                "2.26.5+dfsg-1",
                "c5f5d683f8a1c0772e75e82c0696e03476ddbb012ee0fc592d8472ebee524940",
                "Zlib",
                "deb",
                1_050_108,
            ),
            Package(
                "libvulkan-dev",
                "1.3.239.0-1",
                "1a3dcf32a47524edfe5eef97bfdb0766fe656f4ae6c5e999291c6a7eb2f07655",
                "Apache-2.0",
                "deb",
                1_115_368,
            ),
        ),
        r"usr/.*\.h",
        "plain",
    ),
    "french": _manuals(
        "french",
        "fr",
        Package(
            "manpages-fr",
            "4.18.1-1",
            "ec29759cc0e4a44dc7719c1e32869d0060667049e584f09556f0d982b969ea33",
            _MANPAGES_L10N,
            "deb",
            1_899_104,
        ),
        Package(
            "manpages-fr-dev",
            "4.18.1-1",
            "25f5a53208d92f0a69a89e349edfb3068e6e6e4e0673fe712dd0d3b0c5b1512d",
            _MANPAGES_L10N,
            "deb",
            2_645_176,
        ),
    ),
    "german": _manuals(
        "german",
        "de",
        Package(
            "manpages-de",
            "4.18.1-1",
            "37d2e7ee51f22952aecec3af93647ff59194a3c74bb7a694560f49c7f7ab3978",
            _MANPAGES_L10N,
            "deb",
            3_615_560,
        ),
        Package(
            "manpages-de-dev",
            "4.18.1-1",
            "cb3d7c10977dd3c811065d89e0d912196ec5e6f2551308edb0ba72e02da838d7",
            _MANPAGES_L10N,
            "deb",
            1_141_048,
        ),
    ),
    "json": Recipe(
        "json",
        (
            Package(
                "botocore",
                "1.44.5",
                "8f16a56d1dff125dd65322ae021efa7ba5195a6db5102b96862566055b748921",
                "Apache-2.0",
                "wheel",
                16_555_415,
            ),
        ),
        r"botocore/data/.*/service-2\.json\.gz",
        "gzip",
    ),
    "legal": Recipe(
        "legal",
        (
            Package(
                "licensedcode-data",
                "32.1.0",
                "18f60bde6dbabbc0a925d45ed80089cdbb7168156a2a1c118737198f9b743b96",
                "CC-BY-4.0; each text belongs to its author",
                "wheel",
                26_671_146,
            ),
        ),
        r"licensedcode/data/licenses/[^/]+\.LICENSE",
        "licence",
    ),
    "python": Recipe(
        "python",
        (
            Package(
                "django",
                "5.2.19",
                "5965d974a5218a2b68a11dd1276434707f23886525c23f0598eccedaf4f4ca00",
                "BSD-3-Clause",
                "wheel",
                8_319_631,
            ),
            Package(
                "docutils",
                "0.23",
                "25d013af9bf23bc1c7b2b093dff4208166c53a94786c9e447808335ef1185fea",
                "public domain; some files BSD-2-Clause, GPL-3.0-or-later or PSF",
                "wheel",
                634_701,
            ),
            Package(
                "networkx",
                "3.6.1",
                "d47fbf302e7d9cbbb9e2555a0d267983d2aa476bac30e90dfbe5669bd57f3762",
                "BSD-3-Clause",
                "wheel",
                2_068_504,
            ),
            Package(
                "twisted",
                "26.10.0",
                "3732f42af218925a0fe78d6668db55853f7fb532245a89a2669babe7d3000fa8",
                "MIT",
                "wheel",
                3_251_703,
            ),
        ),
        r"(django|docutils|networkx|twisted)/.*\.py",
        "plain",
    ),
    "japanese": _manuals(
        "japanese",
        "ja",
        Package(
            "manpages-ja",
            "0.5.0.0.20221215+dfsg-1",
            "4d270e9a1e83be4de0c072a110892a17dc9caa4b501257324006ac28d82c5743",
            _MANPAGES_JA,
            "deb",
            3_826_632,
        ),
        Package(
            "manpages-ja-dev",
            "0.5.0.0.20221215+dfsg-1",
            "eab2ad5f14a87b3911c48c90cef92f85d0e77ca5356923f9f9fbc38a86601d1e",
            _MANPAGES_JA,
            "deb",
            2_521_612,
        ),
    ),
}


def recipes_of(domains: Sequence[str]) -> list[Recipe]:
    """The recipes of domains, in their order. Raises: ValueError for a domain that there is not."""
    unknown = sorted(set(domains) - set(RECIPES))
    if unknown:
        raise ValueError(f"no such domain: {', '.join(unknown)}; there are {', '.join(sorted(RECIPES))}")
    return [RECIPES[domain] for domain in domains]
