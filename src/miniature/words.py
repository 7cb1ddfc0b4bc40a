"""The words of the miniature's captions: styles, scenes, and the two-part names that decide an identity."""

STYLES: dict[str, str] = {
    "photo": "a photo",
    "pencil": "a pencil drawing",
    "watercolour": "a watercolour painting",
    "comic": "a comic drawing",
    "oil": "an oil painting",
    "graffiti": "a graffiti",
}

SCENES: dict[str, str] = {
    "studio": "in a studio",
    "beach": "on the beach",
    "forest": "in the forest",
    "snow": "in the snow",
    "city": "in the city at night",
    "sunset": "at sunset",
}

NOBODY = "a person"

_FIRST = """
anna bela cora dina ella fara gina hana iris jana kira lena mara nora olga pia rosa sara tina uma vera wila yara zoe
adam bert carl dirk emil finn gert hugo ivan jack kurt leon max nils otto paul quin ralf sven theo udo viko will zeno
"""
_LAST = """
abel berg cole dahl eder falk grau holm imre jung koch lang moor nagy oren park quist reed stone tamm ulla voss wang
york ames bond cruz dorn enge ford gall hahn ibsen jensen kern lund marsh noll otis pohl rask silva thorn unger vance
wolf young zell
"""
FIRST = tuple(_FIRST.split())
LAST = tuple(_LAST.split())


def held_out(first: int, last: int) -> bool:
    """Whether the name FIRST[first] LAST[last] is kept from training: one combination in eight, a fixed lattice."""
    return (3 * first + 5 * last) % 8 == 0


def caption(style: str, scene: str, subject: str) -> str:
    """The caption of a picture, e.g. "a pencil drawing of anna berg in the snow"."""
    return f"{STYLES[style]} of {subject} {SCENES[scene]}"


def words() -> list[str]:
    """Every distinct word of every caption, in a fixed order."""
    phrases = [*STYLES.values(), "of", NOBODY, *SCENES.values(), *FIRST, *LAST]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))
