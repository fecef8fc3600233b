"""Parsing JSON of any content safely."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike
from typing import Any

from ocrnet_pl.errors import DataError
from ocrnet_pl.storage.ordinary_files import read_text


def parse_json(text: str | bytes, fail: Callable[[str], DataError]) -> Any:
    """Parse JSON.

    Args:
        text: The JSON.
        fail: Function that makes the error of a problem.

    Raises:
        DataError: It is not JSON, nested too deeply, or has an integer of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise fail("this is not usable JSON (it is nested too deeply)") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise fail(f"this is not valid JSON ({error})") from error
    except (
        ValueError
    ) as error:  # Python refuses such integers, because the time for them grows with the square of their length
        raise fail("this is not usable JSON (an integer has thousands of digits)") from error


def read_json_value(path: str | PathLike[str]) -> Any:
    """Read a JSON file that contains any value.

    Args:
        path: Path of the file.

    Raises:
        DataError: It is missing or not JSON.
    """
    return parse_json(
        read_text(path), lambda problem: DataError.at(path, problem, advice="download or export it again")
    )
