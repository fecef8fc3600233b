"""Damage to files: of any file its bytes, of JSON, YAML, XML, CSV and label rows also what they say."""

from __future__ import annotations

import copy
import json
import os
import random
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

DEEP = 100_000
"""Levels of nesting that no recursive parser survives."""

VALUES: tuple[Any, ...] = (
    *(None, "", -1, 0, 1, 2, 0.5, 10**400, 10**30, 2**63, 2**31, 65536, -(2**63) - 1, 1e308, -1e308, 1e-320),
    *(float("nan"), float("inf"), True, False, [], {}, [[]], {"a": 1}, [None], [1, 2], [1] * 4, [1e308] * 4, ["1"] * 4),
    *("x", "0", "5", "../x", "/etc/passwd", "a\0b", "\ud800", "é" * 50, "a" * 300, "x" * 200_000, "~\0", "a.png"),
    *("\u202e\x1b[31m", "line\nbreak", [10**400] * 4, [float("nan")] * 4, [-5, -5, 1, 1], [[0, 0, 1, 1]]),
    *([[0, 0, 1e9, 0, 1e9, 1e9]], [[0, 0, 1e308, 0, 5, 5]], {"size": [1_000_000, 1_000_000], "counts": [10**12]}),
    *({"size": [12, 20], "counts": 5}, {"size": [12, 20], "counts": "0" * 30}, {"size": [12, 20], "counts": [-5, 245]}),
    {"counts": "PPPPPPPPPPP1"},
)
"""What may stand in the place of any value."""

_TEXTS = (
    *("", "nan", "inf", "-1", "1e308", "1" * 5000, "x" * 200_000, "\0", "../../x", "0x10", "1e-320", "٣", "é"),
    "\ud800",
)


def mutate(name: str, content: bytes, rng: random.Random) -> bytes:
    """Return damaged content of a file of this name."""
    kind = Path(name).suffix
    chosen: list[Callable[[bytes, random.Random], bytes]] = [_bytes]
    structured = {".json": _json, ".yaml": _yaml, ".xml": _xml, ".csv": _words, ".txt": _words, ".safetensors": _header}
    if kind in structured:
        chosen = [structured[kind]] * 3 + [_bytes]
    for _ in range(rng.choice((1, 1, 1, 2))):
        try:
            content = rng.choice(chosen)(content, rng)
        except (ValueError, LookupError, AttributeError, RecursionError, yaml.YAMLError):  # it is damaged already
            content = _bytes(content, rng)
    return content


def replace_file(path: Path, rng: random.Random) -> None:
    """Put something else than a file in its place: nothing, a folder, a pipe, a link to itself, a device."""
    path.unlink()
    kind = rng.randrange(5)
    if kind == 1:
        path.mkdir()
    elif kind == 2:
        os.mkfifo(path)
    elif kind == 3:
        path.symlink_to(path)
    elif kind == 4:
        path.symlink_to("/dev/zero")


def _bytes(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    if not data:
        return rng.randbytes(20)
    place = rng.randrange(len(data))
    kind = rng.randrange(11)
    if kind < 3:
        for _ in range(rng.choice((1, 1, 3, 20))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 3:
        return bytes(data[:place])
    elif kind == 4:
        data[place:place] = rng.randbytes(rng.choice((1, 4, 100)))
    elif kind == 5:
        del data[place : place + rng.choice((1, 4, 100))]
    elif kind == 6:
        return b"\xef\xbb\xbf" + content
    elif kind == 7:
        text = content.decode("latin-1")
        return text.encode(rng.choice(("utf-16", "utf-32", "utf-16-le", "utf-7")))
    elif kind == 8:
        data[place : place + 8] = struct.pack("<q", rng.choice((0, -1, 2**62, 2**31, 7)))
    elif kind == 9:
        return content + content if rng.random() < 0.5 else b""
    else:
        data[place:place] = rng.choice((b"\0", b"\xff", b"[" * DEEP, b'"', b"\n" * 1000, b"9" * 5000, b"<a>" * 10_000))
    return bytes(data)


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """List every container with every key of it."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found.append((value, key))
            _places(value[key], found)
    return found


def _change(content: Any, rng: random.Random) -> Any:
    content = copy.deepcopy(content)
    places = _places(content, [])
    if not places or rng.random() < 0.02:
        return rng.choice(VALUES)
    for _ in range(rng.choice((1, 1, 1, 3))):
        holder, key = rng.choice(places)
        kind = rng.randrange(10)
        try:
            if kind == 0:
                del holder[key]
            elif kind == 1 and isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
            elif kind == 2 and isinstance(holder, dict):
                holder[rng.choice(("x", "", "\ud800", "id", "a\0b", "name"))] = holder.pop(key)
            elif kind == 3:
                other, place = rng.choice(places)
                holder[key] = copy.deepcopy(other[place])
            elif kind == 4 and isinstance(holder[key], int | float):
                holder[key] = rng.choice(
                    (-holder[key], holder[key] * 10**9, str(holder[key]), float(holder[key]) + 0.1)
                )
            else:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
        except (KeyError, IndexError):  # it went with another change
            continue
    return content


def _json(content: bytes, rng: random.Random) -> bytes:
    text = json.dumps(_change(json.loads(content), rng))
    kind = rng.randrange(12)
    if kind == 0:
        # A value that no parser of Python can print: nested without end, or as many digits as it likes.
        text = re.sub(r"\d+", lambda m: rng.choice(("[" * DEEP, "9" * 5000, "1e999", "-0", "01")), text, count=1)
    elif kind == 1:
        text = re.sub(r'("\w+": )([^,{}\[\]]+)', r"\1\2, \g<0>", text, count=rng.randrange(1, 4))  # keys twice
    return text.encode("utf-8", "surrogatepass")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghijklm", "bcdefghijklmn", strict=True)
)
_YAML = (
    *("!!int x", "!!python/object/apply:os.system [ls]", "2024-99-99", "!!timestamp x", "1:" * 2000 + "1", "*zz", "<<"),
    *(
        "0x" + "f" * 5000,
        "&q [*q]",
        "!!binary x",
        "!!set {a, b}",
        "[" * 5000,
        "{a: " * 500,
        "? [a]\n  : b",
        "!!float x",
    ),
    *("300000000", "9" * 5000, "!!omap [a: 1]", "!!bool x", "~", "'", "!!null x", ".inf", "1e999", "- a"),
)


def _yaml(content: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    text = content.decode()
    if text.startswith(BOMB):
        raise ValueError("nobody unfolds it")
    if kind == 0:
        return (BOMB + re.sub(r"(?m): .*$", ": *m", text, count=rng.randrange(1, 4))).encode()
    if kind < 3:
        lines = text.splitlines()
        row = rng.randrange(len(lines))
        lines[row] = lines[row].partition(":")[0] + ": " + rng.choice(_YAML)
        return "\n".join(lines).encode()
    changed = yaml.safe_load(text)
    changed = json.loads(json.dumps(changed)) if rng.random() < 0.3 else changed
    return yaml.safe_dump(_change(changed, rng), allow_unicode=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def _xml(content: bytes, rng: random.Random) -> bytes:
    text = content.decode()
    kind = rng.randrange(6)
    if kind < 3:
        spots = list(re.finditer(r">([^<>]+)<", text))
        spot = rng.choice(spots)
        text = text[: spot.start(1)] + rng.choice(_TEXTS) + text[spot.end(1) :]
    elif kind == 3:
        spot = rng.choice(list(re.finditer(r"<(\w+)>.*?</\1>", text)))
        text = text[: spot.start()] + rng.choice(("", spot[0] * 2, "<a>" * 1000)) + text[spot.end() :]
    elif kind == 4:
        entities = "".join(f'<!ENTITY {n} "{f"&{o};" * 10}">' for o, n in zip("abcdefghi", "bcdefghij", strict=True))
        text = f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{entities}]>' + text.replace("cat", "&j;")
    else:
        encoding = rng.choice(("utf-16", "foo", "big5", "latin-1"))
        text = rng.choice((f'<?xml version="1.0" encoding="{encoding}"?>', "&x;", "<![CDATA[")) + text
    return text.encode("utf-8", "surrogatepass")


def _words(content: bytes, rng: random.Random) -> bytes:
    text = content.decode()
    kind = rng.randrange(8)
    if kind < 4:
        spots = list(re.finditer(r'[^\s,"]+', text))
        spot = rng.choice(spots)
        text = text[: spot.start()] + rng.choice(_TEXTS) + text[spot.end() :]
    elif kind == 4:
        lines = text.splitlines(keepends=True)
        lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        text = "".join(lines)
    elif kind == 5:
        place = rng.randrange(len(text))
        text = (
            text[:place] + rng.choice((",", '"', "\n", ",,,", " 1" * 100_000, "[" * 5000, "\r", "\x85")) + text[place:]
        )
    elif kind == 6:
        numbers = list(re.finditer(r"\d+(?:\.\d+)?", text))
        spot = rng.choice(numbers) if numbers else None
        if spot is not None:
            text = (
                text[: spot.start()]
                + rng.choice(("1e308", "-3", "9" * 400, "9" * 5000, "nan", "[]"))
                + text[spot.end() :]
            )
    else:
        text = text.replace(rng.choice(("0", "1", "a", "\n")), rng.choice(("", "x", "9", "\t")))
    return text.encode("utf-8", "surrogatepass")


def _header(content: bytes, rng: random.Random) -> bytes:
    """Change what a file of arrays says of its arrays, and the numbers in them."""
    length = int.from_bytes(content[:8], "little")
    if not 0 < length < len(content) or rng.random() < 0.4:
        data = bytearray(content)
        place = rng.randrange(min(8 + length, len(data) - 1), len(data))
        data[place : place + 8] = struct.pack("<q", rng.choice((-1, 2**62, 10**9, 255, 0)))
        return bytes(data[: len(content)])
    text = _json(content[8 : 8 + length], rng)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]
