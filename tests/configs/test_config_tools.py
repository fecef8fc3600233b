"""The configs of annotation tools, which differ from that of tables in their data, read the trees of their pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import ArgumentParser

from ocrnet_pl.data.sources.base import Source
from tests.helpers.project import CONFIGS, ROOT
from tests.helpers.tool_data import TOOLS

BOXES_ALONE = ("yolo_names", "open_images", "lvis")
PIXELS_ALONE = ("suffixed_masks",)


@pytest.mark.parametrize("name", TOOLS)
def test_a_config_and_its_page_read_the_tools_files(name: str, tmp_path: Path, parser: ArgumentParser) -> None:
    path = CONFIGS / f"formats/{name}.yaml"
    page = (ROOT / f"docs/formats/{name}.md").read_text().split("```yaml\n")[1].split("```")[0]
    given, shown = yaml.safe_load(path.read_text()), yaml.safe_load(page)
    assert all(given["data"][split] == shown["data"][split] for split in ("train", "val"))
    assert given.get("name") == shown["name"] == name
    # Training by such a config is tested with the table's.
    table = yaml.safe_load((CONFIGS / "formats/table.yaml").read_text())
    for config in (given, table):
        del config["name"], config["data"]["train"], config["data"]["val"]
    alone = {
        name: None for names, name in ((BOXES_ALONE, "segmentation"), (PIXELS_ALONE, "detection")) if path.stem in names
    }
    assert given == table | {"model": table["model"] | alone}

    TOOLS[name](tmp_path)
    data = parser.parse_args(["fit", "--config", str(path), "--data.root", str(tmp_path)]).as_dict()["fit"]["data"]
    for split in ("train", "val"):
        data[split]["init_args"]["root"] = str(tmp_path)
        single = ArgumentParser()
        single.add_argument("--source", type=Source)
        source: Any = single.instantiate_classes(single.parse_object({"source": data[split]})).source
        samples = [source[index] for index in range(len(source))]
        assert len(samples) == 2
        for sample in samples:
            assert [len(sample.boxes), sample.semantic is not None] == [
                0 if name in PIXELS_ALONE else 1,
                name not in BOXES_ALONE,
            ]


@pytest.mark.parametrize("page", ["from_your_tool", "volumes", "datumaro", "suffixed_masks", "yolo_names"])
def test_the_configs_of_a_page_are_configs(page: str, tmp_path: Path, parser: ArgumentParser) -> None:
    blocks = (ROOT / f"docs/formats/{page}.md").read_text().split("```yaml\n")[1:]
    for number, block in enumerate(blocks):
        config = tmp_path / f"{number}.yaml"
        config.write_text(block.split("```")[0])
        data = parser.parse_args(["fit", "--config", str(config)]).as_dict()["fit"]["data"]
        assert data["train"]["class_path"].startswith("ocrnet_pl.data.")
    assert blocks
