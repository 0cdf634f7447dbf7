"""Text that can be shown anywhere: on a terminal, in a log, on a page."""

from __future__ import annotations

import re

# Control characters (C0, DEL and C1, with the sequences that they begin), the separators of lines and paragraphs, and
# the marks that change the direction of the text around them.
_UNPRINTABLE = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
PRINTABLE = rf"\A[^{_UNPRINTABLE}]*\Z"  # pattern of every text that one side accepts from the other
_unprintable = re.compile(f"[{_UNPRINTABLE}]")
_but_line_ends = re.compile(f"(?!\n)[{_UNPRINTABLE}]")


def shown(text: str) -> str:
    """The text with a replacement character for each that is unprintable. Its line ends stay."""
    return _but_line_ends.sub("\N{REPLACEMENT CHARACTER}", text)


def on_one_line(text: str) -> str:
    r"""The text with escapes, such as \n and \x1b, for its unprintable characters."""
    return _unprintable.sub(lambda match: match[0].encode("unicode_escape").decode(), text)
