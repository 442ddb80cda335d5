"""What a job printed, as text. Pure.

Below: `jobs.model`. Above: the dialects.
"""

from __future__ import annotations

__all__ = ["text_of"]

from codecs import getincrementaldecoder

from intercept_py.jobs.model import Output

_Decoder = getincrementaldecoder("utf-8")
_CONTINUATION = bytes(range(0x80, 0xC0))


def text_of(output: Output) -> str:
    """The output as text; a line in brackets stands for what was not kept.

    Bytes that are no UTF-8 become U+FFFD. A character of which a part was not kept belongs to what was not kept.
    """
    if not output.dropped:
        return (output.head + output.tail).decode(errors="replace")
    head = _Decoder("replace").decode(output.head)
    rest = output.tail[:3].lstrip(_CONTINUATION) + output.tail[3:]
    return f"{head}\n[{output.dropped} bytes were not kept]\n{rest.decode(errors='replace')}"
