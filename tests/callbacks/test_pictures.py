from __future__ import annotations

import re
from pathlib import Path

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from PIL import Image

from ocrnet_pl.callbacks.pictures import Pictures
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from tests.training.test_task import make_data, make_task, make_trainer


def run(tmp_path: Path, pictures: Pictures, *others: Callback, **options: object) -> set[str]:
    """Train a little and return the names of the pictures."""
    source = SyntheticSource(length=8, seed=5, size=64)
    logger = CSVLogger(tmp_path, name="run", version="one")
    trainer = make_trainer(tmp_path, logger=logger, callbacks=[pictures, *others], log_every_n_steps=1, **options)
    trainer.fit(make_task(source.taxonomy), make_data(source, source))
    return {p.name for p in (tmp_path / "run" / "one" / "pictures").glob("*")}


@pytest.mark.usefixtures("rendered_pictures")
def test_the_same_images_spread_over_the_set_are_drawn_each_time(tmp_path: Path) -> None:
    names = run(tmp_path, Pictures(count=2, every_n_epochs=1), max_epochs=2)
    assert names == {
        "curves.png",
        "confusion.png",
        "index.html",
        *(f"epoch-000{epoch}_0000{i}_synthetic-5-{i}.png" for epoch in (0, 1) for i in (2, 6)),
        *(f"epoch-000{epoch}_sheet.png" for epoch in (0, 1)),
    }
    with Image.open(tmp_path / "run" / "one" / "pictures" / "epoch-0001_00002_synthetic-5-2.png") as picture:
        # Truth, raw, fused and panoptic side by side, a 64 pixel image enlarged to 512 each.
        assert picture.width > 4 * 512
        height = picture.height
    with Image.open(tmp_path / "run" / "one" / "pictures" / "epoch-0001_sheet.png") as picture:
        assert picture.height > 1.9 * height
    page = (tmp_path / "run" / "one" / "pictures" / "index.html").read_text()
    shown = re.findall(r'<img src="([^"]+)"', page)
    # Each image on its own, from the first epoch to the last.
    assert shown == [
        *("curves.png", "confusion.png"),
        *(f"epoch-000{epoch}_0000{i}_synthetic-5-{i}.png" for i in (2, 6) for epoch in (0, 1)),
    ]
    for name in ("curves.png", "confusion.png"):
        with Image.open(tmp_path / "run" / "one" / "pictures" / name) as plot:
            assert min(plot.size) > 200 and len(plot.convert("RGB").getcolors(1 << 24) or []) > 20


def test_the_last_validation_is_drawn_whatever_the_rhythm(tmp_path: Path) -> None:
    names = run(tmp_path, Pictures(count=1, every_n_epochs=5), max_epochs=2)
    assert {name for name in names if name.startswith("epoch-")} == {
        "epoch-0001_00004_synthetic-5-4.png",
        "epoch-0001_sheet.png",
    }


class StopAfterSanityCheck(Callback):
    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise RuntimeError("that was the sanity check")


def test_the_sanity_check_draws_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="sanity"):
        run(tmp_path, Pictures(count=2, every_n_epochs=1), StopAfterSanityCheck())
    folder = tmp_path / "run" / "one" / "pictures"
    assert not folder.exists() or not list(folder.glob("epoch*"))


def test_switched_off_draws_no_images(tmp_path: Path) -> None:
    names = run(tmp_path, Pictures(count=0))
    assert not {name for name in names if name.startswith("epoch-")}


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="every_n_epochs"):
        Pictures(every_n_epochs=0)
    for threshold in (-0.1, 7, float("nan")):
        with pytest.raises(ValueError, match=rf"^pictures.threshold: expected 0 to 1, got {threshold}$"):
            Pictures(threshold=threshold)
