"""Names from outside as text that is safe to draw, to render and to call a file.

Class, folder, file and model names come from users and from file systems. Matplotlib reads `$` as the start of
mathematics, Markdown and HTML read `<`, `|` and `*` as markup, terminals obey control characters, and bytes of a file's
name that are no UTF-8 (`os.fsdecode`) cannot be written at all. Every function here is total: it raises for no text.
"""

from __future__ import annotations

import re
import unicodedata

_CUT = "…"
# Characters that reorder or hide the text around them. Joiners (U+200C, U+200D) stay, as scripts and emoji need them.
_UNSEEN = set("\u00ad\u061c\u200b\u200e\u200f\u2028\u2029\u2060\ufeff") | {
    chr(c) for c in (*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xFFF9, 0xFFFC))
}
_MARKUP = re.compile(r"[&<>|`*\[\]\\~$\"'{}]|(?<![^\W_])_|_(?![^\W_])|://|(?<=\bwww)\.|(?<=\S)@|@(?=\S)")
_BLOCK = re.compile(r"[#+=>-]|:(?=-)|(?<=\d)[.)](?=\s|$)")


def printable(text: str) -> str:
    """A text as one line that can be printed: no control characters, no lone surrogates, no direction marks.

    Line breaks and runs of spaces become one space. A byte that was no UTF-8 becomes `\\xe9`, a control character
    `\\x07`. Other letters, of right-to-left scripts too, stay what they are.
    """
    return " ".join("".join(map(_visible, str(text))).split())


def shorten(text: str, limit: int) -> str:
    """A text of at most `limit` characters (at least 1), whose middle is left out where it is longer."""
    limit = max(1, limit)
    if len(text) <= limit:
        return text
    tail = (limit - 1) // 3
    return text[: limit - 1 - tail] + _CUT + (text[-tail:] if tail else "")


def plain(text: str, *, limit: int = 80) -> str:
    """A text as Matplotlib draws it letter by letter: on one line, without mathematics.

    limit: the most characters; the middle of a longer text is left out.

    A leading underscore, which would keep a label out of a legend, gets a space in front of it.
    """
    shown = shorten(printable(text), limit).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def markdown(text: str) -> str:
    """A text that Markdown and HTML show letter by letter, in a line, a list, a heading or a cell of a table.

    Markup is written as HTML entities, which both understand. Do not put the result between backticks.
    """
    shown = _MARKUP.sub(_entities, printable(text))
    head = re.match(r"\d{1,9}(?=[.)](\s|$))", shown)
    start = head.end() if head else 0
    found = _BLOCK.match(shown, start)
    return shown[:start] + _entities(found) + shown[found.end() :] if found else shown


def file_name(text: str, *, limit: int = 200) -> str:
    """A text as part of a file's name: printable, without separators, at most `limit` bytes of UTF-8, never empty.

    `/`, `\\`, `:`, `*`, `?`, `"`, `<`, `>` and `|`, which some file system forbids, become `-`. What is too long ends
    in a number that is the same for the same text, so that two long names do not become one.
    """
    import zlib

    whole = str(text)
    name = re.sub(r'[/\\:*?"<>|]', "-", printable(whole)).strip(" .") or "unnamed"
    if len(name.encode()) <= limit:
        return name
    end = f"-{zlib.crc32(whole.encode('utf-8', 'surrogatepass')):08x}"
    return name.encode()[: max(0, limit - len(end))].decode("utf-8", "ignore").rstrip(" .") + end


def _visible(letter: str) -> str:
    if letter.isspace():
        return " "
    if letter in _UNSEEN:
        return ""
    code, kind = ord(letter), unicodedata.category(letter)
    if 0xDC80 <= code <= 0xDCFF:  # how `os.fsdecode` spells a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if kind == "Cc":
        return f"\\x{code:02x}"
    if kind == "Cs" or code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF:
        return f"\\u{code:04x}"
    return letter


def _entities(found: re.Match[str]) -> str:
    return "".join(f"&#{ord(letter)};" for letter in found[0])
