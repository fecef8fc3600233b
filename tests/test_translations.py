"""The Chinese front page and notebook say what the English ones say: same commands, links, figures and code."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from tests.helpers.project import ROOT

NOTEBOOKS = ROOT / "notebooks"
TRANSLATED = sorted(path.name for path in NOTEBOOKS.glob("*.zh-CN.ipynb"))

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)]*)\)")
_COMMENT = re.compile(r"<!--.*?-->")
_CODE = re.compile(r"`[^`\n]+`")
_FORMULA = re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL)
_MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November"]
_OWN = {"README.md", "README.zh-CN.md", "03_method.ipynb", "03_method.zh-CN.ipynb", "notebooks/03_method.zh-CN.ipynb"}
"""Links from one language to the other, which are not the same in both."""


def links(text: str) -> Counter[str]:
    """The targets of the links, without anchors within the page, whose headings are translated."""
    return Counter(link for link in _LINK.findall(text) if link not in _OWN and not link.startswith("#"))


def numbers(text: str) -> Counter[str]:
    """The figures, outside of code, links and formulas; months count by their number, as in Chinese."""
    for pattern in (_FORMULA, _CODE, re.compile(r"\]\([^)]*\)")):
        text = pattern.sub(" ", text)
    for number, month in enumerate(_MONTHS, 1):
        text = text.replace(f"{month} 20", f"{number} 20")
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


SAME: dict[str, Callable[[str], Counter[str]]] = {
    "links": links,
    "numbers": numbers,
    "code": lambda text: Counter(_CODE.findall(text)),
    "formulas": lambda text: Counter(_FORMULA.findall(text)),
    "table rows": lambda text: Counter(row=len(re.findall(r"(?m)^\|", text))),
    "items": lambda text: Counter(item=len(re.findall(r"(?m)^(?:- |\d+\. )", text))),
    "headings": lambda text: Counter(re.findall(r"(?m)^(#+) ", text)),
}


def differences(english: str, chinese: str) -> list[str]:
    """What one text has and the other has not."""
    found = []
    for name, look in SAME.items():
        one, other = look(english), look(chinese)
        if one != other:
            found.append(f"{name}: only English {dict(one - other)}, only Chinese {dict(other - one)}")
    return found


def blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks without comments, and of drawings without a language the first word of each line."""

    def kept(language: str, line: str) -> str:
        return re.sub(r"\s+#.*", "", line) if language else re.split(r"\s{2,}", line.strip())[0]

    return [
        (language, "\n".join(kept(language, line) for line in code.splitlines()))
        for language, code in _FENCE.findall(text)
    ]


def test_the_front_page_has_the_same_commands_links_and_figures() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
    assert blocks(english) == blocks(chinese)
    sections = [re.split(r"(?m)^(?=#+ )", _FENCE.sub("", text)) for text in (english, chinese)]
    assert len(sections[0]) == len(sections[1])
    for one, other in zip(*sections, strict=True):
        assert differences(one, other) == [], one.splitlines()[0]


def test_there_is_a_translated_notebook() -> None:
    assert TRANSLATED == ["03_method.zh-CN.ipynb"]


@pytest.mark.parametrize("name", TRANSLATED)
def test_a_notebook_has_the_same_cells(name: str) -> None:
    english, chinese = (
        nbformat.read(NOTEBOOKS / each, as_version=4).cells for each in (name.replace(".zh-CN", ""), name)
    )
    assert [cell.cell_type for cell in english] == [cell.cell_type for cell in chinese]
    for place, (one, other) in enumerate(zip(english, chinese, strict=True)):
        if one.cell_type == "code":
            assert one.source == other.source, place
            assert one.outputs == other.outputs, place
        else:
            assert differences(_FENCE.sub("", one.source), _FENCE.sub("", other.source)) == [], place
            assert len(re.findall(r"[\u4e00-\u9fff]", other.source)) > len(one.source) / 12, place


@pytest.mark.parametrize(
    ("english", "chinese"),
    [
        ("It takes 0.56 of the time.", "它用 0.65 倍的时间。"),
        ("See [a](docs/a.md).", "见 [a](docs/b.md)。"),
        ("Set `--epochs`.", "设置 `--epoch`。"),
        ("- one\n- two", "- 一"),
        ("| a |\n| b |", "| 一 |"),
        ("$a + b$", "$a - b$"),
        ("## A", "### 甲"),
    ],
)
def test_what_drifts_apart_is_found(english: str, chinese: str) -> None:
    assert len(differences(english, chinese)) == 1


def test_months_are_numbers_in_chinese() -> None:
    assert numbers("read in November 2026") == numbers("查阅于 2026 年 11 月")


def test_names_in_the_layout_count_and_their_explanations_do_not() -> None:
    one, other = ("```\ntrain.py   the command line\n```", "```\ntrain.py   命令行\n```")
    assert blocks(one) == blocks(other) != blocks(other.replace("train", "fit"))


def test_every_translation_stands_beside_its_original() -> None:
    for path in [*ROOT.glob("*.zh-CN.*"), *NOTEBOOKS.glob("*.zh-CN.*")]:
        assert Path(str(path).replace(".zh-CN", "")).is_file(), path
