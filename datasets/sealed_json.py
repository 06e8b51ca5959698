"""JSON files that end in the CRC of what stands before it, so that no flipped bit goes unnoticed.

TFRecord's CRCs cover the records; these cover the lists and the schema. The checksum is in the file itself, as two files
cannot be replaced at once.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import google_crc32c


class Ending(NamedTuple):
    """How a file is laid out, and what its checksum is called."""

    text: bytes
    indent: int | None


PLAIN = Ending(b',\n "crc32c": "%08x"\n}\n', indent=1)
TFDS = Ending(b', "releaseNotes": {"crc32c": "%08x"}}\n', indent=None)
"""For dataset_info.json, where TFDS refuses a field that it does not know; release notes it takes, and shows to nobody.
In one line, as that is encoded ten times as fast, and it is written whenever a shard is sealed."""


def seal_json(value: dict[str, Any], ending: Ending = PLAIN) -> bytes:
    """A file's content: the value and, as its last field, the CRC32C of all bytes before that."""
    body = json.dumps(value, indent=ending.indent).encode().removesuffix(b"}").rstrip(b"\n")
    return body + ending.text % int(google_crc32c.value(body))


def open_json(data: bytes, ending: Ending = PLAIN) -> dict[str, Any]:
    """The value that `seal_json` was given; raises `ValueError` for anything else.

    A file without a checksum, as Flywheel 0.1 wrote them, is read too: a flip in the checksum's own name leaves a field of
    another name, which the caller's check of the fields has to refuse.
    """
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("no object")
    (field,) = json.loads(b"{" + ending.text[1:] % 0)
    if field in value:
        body = data[: -len(ending.text % 0)]
        if data != body + ending.text % int(google_crc32c.value(body)):
            raise ValueError("it does not agree with its checksum")
        del value[field]
    return value
