"""Is a text English? Told by its letters and its small words; in doubt it is."""

import re

_WORD = re.compile(r"[^\W\d_]+")

# Small words that no English text is made of, of languages that teachers drift into: German,
# French, Spanish, Portuguese, Italian, Dutch, Polish, Turkish, Swedish, Danish, Indonesian,
# Vietnamese.
_FOREIGN_TEXT = """
    der das und ist ein eine einen einem einer nicht auf dem den sind wird mit für auch von sich
    le la les des est une un dans avec sur et qui que pas pour il elle sont du au aux ce cette
    el los las con en del de es está están para por como y se hay
    uma um não com em os são da dos na nas ao
    della di che è sono nel gli della alla
    het een niet op zijn voor naar
    jest się nie oraz je ve bir bu için och är som inte det og ikke
    yang dengan ini dan một và là của có trong không
"""
_ENGLISH_TEXT = """
    the is are was were of and to it its with what which how why where who there this that these
    they them their from by be been would could should can will has have had does because not at
    for yes no in on a an as or if you he she his her while
"""
_FOREIGN = frozenset(_FOREIGN_TEXT.split())
_ENGLISH = frozenset(_ENGLISH_TEXT.split())

_FEWEST_FOREIGN = 3
_FEWEST_LETTERS = 5
_SHARE_BEYOND_ASCII = 0.6


def language_fault(text: str) -> str | None:
    """A reason where the text is surely not English, else None.

    It isn't where most of its letters are of another alphabet, or where it has three or more small
    words of another language and more of them than of English. Short texts in Latin letters pass:
    names and signs must not cost an answer.
    """
    words = _WORD.findall(text.lower())
    letters = sum(map(len, words))
    beyond = sum(not letter.isascii() for word in words for letter in word)
    foreign = sum(word in _FOREIGN for word in words)
    english = sum(word in _ENGLISH for word in words)
    if letters >= _FEWEST_LETTERS and beyond > _SHARE_BEYOND_ASCII * letters:
        return f"not_english: {beyond} of {letters} letters are not of the English alphabet"
    if foreign >= _FEWEST_FOREIGN and foreign > english:
        return f"not_english: {foreign} small words of another language, {english} of English"
    return None
