"""The parser of a command line against that of the library, which takes longer to the same result."""

from __future__ import annotations

import os

import pytest
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from ocrnet_pl.cli.parser import Parser
from ocrnet_pl.data.readers import yaml_text
from tests.helpers.command_line import command_line_parser
from tests.helpers.project import CONFIGS


@pytest.mark.parametrize(
    ("subcommand", "more"),
    [
        ("fit", ["--trainer.callbacks+=Timer"]),
        # Both take the same way through the parser; test_config_errors.py parses command lines of both.
        pytest.param("check", ["--output=x"], marks=pytest.mark.slow),
    ],
)
def test_a_config_is_what_the_library_makes_of_it(subcommand: str, more: list[str]) -> None:
    parser = command_line_parser(subcommand)
    words = [subcommand, "--config", str(CONFIGS / "formats/mixture.yaml"), "--data.batch_size=3", *more]
    words += ["--config", str(CONFIGS / "overlays/decoders/one_to_one.yaml"), "--model.neck.init_args.width=8"]
    Parser.words, Parser.folder = words, os.getcwd()
    got, want = parser.parse_args(words), LightningArgumentParser.parse_args(parser, words)
    assert got.as_dict() == want.as_dict()
    assert list(got[subcommand].keys()) == list(want[subcommand].keys())
    assert got[subcommand].data.batch_size == 3 and got[subcommand].model.neck.init_args.width == 8
    text = parser.dump(got, skip_none=False)
    assert yaml.safe_load(text) == yaml_text.own(text)
    content = yaml.safe_load(text)
    assert yaml_text.dump(content) == yaml.safe_dump(content, allow_unicode=True, sort_keys=False)


@pytest.mark.parametrize("value", ["null", "0.2"])
def test_a_part_within_a_part_takes_null_as_any_value(value: str) -> None:
    """Also over a value that stands in the config before."""
    words = ["fit", "--config", str(CONFIGS / "quickstart.yaml"), "--model.postprocess=FusionPostProcess"]
    words += ["--model.postprocess.init_args.decode=Decode"]
    decode = "--model.postprocess.init_args.decode.init_args"
    words += [f"{decode}.box_voting=0.1", f"{decode}.box_voting={value}", f"{decode}.iou_threshold", value]
    Parser.words, Parser.folder = words, os.getcwd()
    found = command_line_parser("fit").parse_args(words).fit.model.postprocess.init_args.decode.init_args
    expected = yaml.safe_load(value)
    assert (found.box_voting, found.iou_threshold, found.max_detections) == (expected, expected, 100)
