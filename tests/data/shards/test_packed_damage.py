"""Damaged shards, sets that are none, and indices of other sets are named in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from ocrnet_pl.data.loading.dataset import PreparedDataset
from ocrnet_pl.data.shards.format import encode
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.data.shards.writer import pack
from ocrnet_pl.data.transforms import Compose
from ocrnet_pl.errors import DataError, StoreError
from tests.helpers.packed_data import Numbered, assert_same, packed_folder


def _as_it_is(entry: Any) -> Any:
    return entry


def _flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def test_damage_names_the_shard(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    packed = Packed(folder)
    index = int(np.flatnonzero(packed._shard == 2)[1])
    _flip(folder / "shard-00002.tar", int(packed._start[index]) + 2000)
    assert_same(packed[index - 1], Numbered()[index - 1])
    with pytest.raises(DataError, match=rf"packed/shard-00002\.tar: the shard is damaged .* number {index}; copy"):
        packed[index]
    (folder / "shard-00001.tar").write_bytes((folder / "shard-00001.tar").read_bytes()[:5000])
    with pytest.raises(DataError, match=r"shard-00001\.tar: it has 5000 bytes instead of \d+; copy it again"):
        Packed(folder)
    (folder / "shard-00001.tar").unlink()
    with pytest.raises(DataError, match=r"shard-00001\.tar: the file is missing; copy it again"):
        Packed(folder)
    with pytest.raises(DataError, match=r"shard-00001\.tar: the file is missing"):
        packed[int(packed.blocks.bounds[1])]  # type: ignore[union-attr]


def test_a_damaged_shard_is_no_unreadable_image(tmp_path: Path) -> None:
    """It is not left out as one image is, neither in training nor in evaluation nor by a packing."""
    folder = packed_folder(tmp_path / "packed")
    packed = Packed(folder)
    _flip(folder / "shard-00000.tar", int(packed._start[0]) + 2000)
    said = r"shard-00000\.tar: the shard is damaged at byte 0"
    for transforms in (None, Compose([])):
        tolerant = PreparedDataset(packed, (32, 32), transforms=transforms, tolerant=True)
        with pytest.raises(StoreError, match=said):
            tolerant[0]
    with pytest.raises(StoreError, match=said):
        pack(packed, tmp_path / "again", "test", tolerant=True)
    with pytest.raises(StoreError) as raised:  # out of another process
        list(DataLoader(tolerant, batch_size=None, num_workers=1, collate_fn=_as_it_is))
    last = str(raised.value).strip().splitlines()[-1]
    assert last.startswith("ocrnet_pl.errors.StoreError: ") and "the shard is damaged" in last


def test_an_image_that_was_broken_before_is_named(tmp_path: Path) -> None:
    """Bytes that are what was packed, and still no image: a decoder of another version may refuse them."""
    from ocrnet_pl.data.shards.format import decode, split_members

    record = encode(Numbered()[1], 1)
    image = split_members(record.content, record.lengths)[1]
    assert image is not None
    broken = record.content.replace(image, b"\0" * len(image))
    with pytest.raises(DataError, match="shard-7: number 1: this is not an image file"):
        decode(broken, record.lengths, Numbered().taxonomy, "shard-7: number 1")


@pytest.mark.parametrize("cached", [False, True])
def test_wrong_folders_and_manifests(tmp_path: Path, cached: bool) -> None:
    folder = packed_folder(tmp_path / "data" / "train")

    def message(path: Path, **options: Any) -> str:
        address = {"path": f"file://{path}", "cache": tmp_path / "cache"} if cached else {"path": path}
        with pytest.raises(DataError) as refused:
            Packed(**(address | options))
        assert "\n" not in str(refused.value)
        return str(refused.value)

    assert "there is no packed.json; give the folder to which" in message(tmp_path / "absent")
    assert message(tmp_path / "data").endswith(f"there is no packed.json; give {'file://' * cached}{folder}")
    manifest = json.loads((folder / "packed.json").read_text())

    def changed(**changes: Any) -> str:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(folder, tmp_path / "copy")
        (tmp_path / "copy" / "packed.json").write_text(json.dumps(manifest | changes))
        return message(tmp_path / "copy")

    assert "packed.json: version: expected version 1, found 99; pack it again" in changed(version=99)
    assert "this is not the manifest" in changed(format=None) or "version" in changed(format=None)
    assert "a field is missing or wrong" in changed(shards=[{"name": "shard-00000.tar"}])
    assert "do not add up" in changed(samples=3)
    assert "has no images" in changed(samples=0, shards=[])
    shards = [manifest["shards"][0] | {"name": "../shard-00000.tar"}, *manifest["shards"][1:]]
    assert "shards[0].name: '../shard-00000.tar' is not the name of a shard" in changed(shards=shards)
    assert "the index does not belong to packed.json" in changed(identity="other")
    (folder / "packed.json").write_text("{")
    assert "this is not the manifest of a packed data set" in message(folder)


def test_an_index_of_another_packing_is_refused(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    other = packed_folder(tmp_path / "other", Numbered(side=23))
    assert (other / "index.safetensors").stat().st_size == (folder / "index.safetensors").stat().st_size
    shutil.copy(other / "index.safetensors", folder / "index.safetensors")
    with pytest.raises(DataError, match=r"index\.safetensors: the index does not belong to packed\.json"):
        Packed(folder)
    (folder / "index.safetensors").write_bytes(b"\0" * (other / "index.safetensors").stat().st_size)
    with pytest.raises(DataError, match=r"index\.safetensors: this is not a complete index"):
        Packed(folder)
    (folder / "index.safetensors").unlink()
    with pytest.raises(DataError, match=r"index\.safetensors: the file is missing"):
        Packed(folder)
