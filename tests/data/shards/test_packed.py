"""A packed sample is the original sample; half-written sets and mistakes are named in one line."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.io import decode_png

from ocrnet_pl.data.cache.content_hash import source_digest
from ocrnet_pl.data.cache.shared_cache import Cached, CacheOptions
from ocrnet_pl.data.records import make_sample
from ocrnet_pl.data.shards.format import encode
from ocrnet_pl.data.shards.manifest import Manifest
from ocrnet_pl.data.shards.source import Packed
from ocrnet_pl.data.shards.writer import pack
from ocrnet_pl.data.sources.base import Source
from ocrnet_pl.data.sources.coco import CocoInstances
from ocrnet_pl.data.sources.synthetic import SyntheticSource
from ocrnet_pl.data.sources.wrappers.mixture import Mixture
from ocrnet_pl.data.sources.wrappers.partial import Partial
from ocrnet_pl.data.sources.wrappers.split import Split
from ocrnet_pl.data.sources.wrappers.tiled import Tiled
from ocrnet_pl.errors import DataError
from ocrnet_pl.structures import Placement, Sample, Supervision, Taxonomy
from tests.helpers.config_data import write_nuclei
from tests.helpers.packed_data import Numbered, assert_same, contents, packed_folder, write_coco
from tests.helpers.project import CONFIGS
from tests.helpers.tiny_run import fails


def _coco(folder: Path) -> Source:
    return CocoInstances(**write_coco(folder))


SOURCES: dict[str, Any] = {
    "coco": _coco,
    "coco, boxes only": lambda folder: CocoInstances(**write_coco(folder), semantic=False),
    "synthetic": lambda folder: SyntheticSource(length=3, size=(40, 56)),
    "partial": lambda folder: Partial(_coco(folder), boxes=["dog"], pixels=["background", "cat"]),
    "tiles": lambda folder: Tiled(_coco(folder), size=24),
    "five channels": lambda folder: Numbered(length=6, channels=5),
    "one channel": lambda folder: Numbered(length=6, channels=1),
    "mixture": lambda folder: Mixture({"coco": _coco(folder), "other": Numbered(length=6)}, {"coco": 1, "other": 3}),
}


@pytest.mark.parametrize("name", list(SOURCES))
@pytest.mark.parametrize("cached", [False, True])
def test_a_packed_sample_is_the_original(tmp_path: Path, name: str, cached: bool) -> None:
    source = SOURCES[name](tmp_path / "data")
    folder = packed_folder(tmp_path / "packed", source)
    options: dict[str, Any] = {"path": f"file://{folder}", "cache": tmp_path / "cache"} if cached else {"path": folder}
    packed = Packed(**options)
    assert len(packed) == len(source) and packed.taxonomy == source.taxonomy
    for index in range(len(source)):
        original = source[index]
        assert_same(packed[index], original)
        assert packed.identity(index) == source.identity(index)
        assert packed.image_size(index) == original.size == tuple(packed.sizes[index])
        np.testing.assert_array_equal(packed.image_boxes(index), original.boxes.numpy())
    copy = pickle.loads(pickle.dumps(packed))
    assert_same(copy[len(source) - 1], original)
    with pytest.raises(IndexError):
        packed[len(source)]


def test_images_keep_their_bytes_and_shards_are_what_webdataset_reads(tmp_path: Path) -> None:
    source = _coco(tmp_path / "data")
    folder = packed_folder(tmp_path / "packed", source)
    samples: dict[str, dict[str, bytes]] = {}
    order: list[str] = []
    for shard in sorted(folder.glob("shard-*.tar")):
        with tarfile.open(shard) as file:
            for member in file.getmembers():
                key, _, ending = member.name.partition(".")
                content = file.extractfile(member)
                assert content is not None
                samples.setdefault(key, {})[ending] = content.read()
                order.append(key)
    assert order == sorted(order)  # the members of a sample stand together
    assert len(samples) == len(source)
    for index, members in enumerate(samples.values()):
        path = Path(source[index].path)
        assert members[path.suffix[1:]] == path.read_bytes()
        assert json.loads(members["json"])["path"] == str(path)
        for ending, plane in (("semantic.png", source[index].semantic), ("instances.png", source[index].instances)):
            assert plane is not None
            drawn = decode_png(torch.frombuffer(bytearray(members[ending]), dtype=torch.uint8))
            assert torch.equal(drawn[0], plane.as_subclass(torch.Tensor).to(torch.uint8))


def test_a_changed_image_is_not_stored_as_its_file(tmp_path: Path) -> None:
    """A source may read a file and then change its pixels; the file's bytes would be another image."""

    class Inverted(CocoInstances):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            return sample.replace(image=tv_tensors.Image(255 - sample.image))

    source = Inverted(**write_coco(tmp_path / "data"))
    packed = Packed(packed_folder(tmp_path / "packed", source))
    for index in range(len(source)):
        assert_same(packed[index], source[index])


def test_many_instances_and_placements() -> None:
    def sample(top: int) -> Sample:
        instances = np.zeros((4, 5), dtype=np.int32)
        instances[1, 2] = top
        return make_sample(
            torch.zeros(3, 4, 5, dtype=torch.uint8),
            boxes=np.tile([0.1, 0.2, 4.3, 3.7], (top, 1)),
            labels=np.zeros(top),
            crowd=np.zeros(top),
            instances=instances,
            supervision=Supervision(torch.tensor([True]), torch.zeros(0, dtype=torch.bool)),
            image_id="é",
            path="many.png",
        ).replace(placement=Placement((8, 10), (4, 5), (0.5, 0.5), (0.0, 1.0)))

    from ocrnet_pl.data.shards.format import decode

    taxonomy = Taxonomy.build(things=["a"], segmented=())
    for top in (255, 256, 300, 65535):
        record = encode(sample(top), 0)
        assert_same(decode(record.content, record.lengths, taxonomy, "here"), sample(top))
    with pytest.raises(DataError, match=r"many\.png: there are 65536 instances"):
        encode(sample(65536), 0)


def test_a_mixture_keeps_its_parts_and_shares(tmp_path: Path) -> None:
    sources: dict[str, Source] = {"a": Numbered(length=9), "b": Numbered(length=12, side=30)}
    mixture = Mixture(sources, {"a": 2.0, "b": 1.0})
    packed = Packed(packed_folder(tmp_path / "packed", mixture))
    assert packed.parts == mixture.parts
    for part in packed.parts:
        assert part.blocks is not None
        assert part.blocks.bounds[0] == 0 and part.blocks.bounds[-1] == part.stop - part.start
        shards = set(packed._shard[part.start : part.stop].tolist())
        assert len(shards) == len(part.blocks.bounds) - 1
        assert not shards & set(packed._shard[part.stop :].tolist())  # no shard belongs to two parts


def test_other_sources_pass_the_blocks_on(tmp_path: Path) -> None:
    packed = Packed(packed_folder(tmp_path / "packed"), window=2)
    blocks = packed.blocks
    assert blocks is not None and len(blocks.bounds) > 4
    assert Partial(packed).blocks is not None
    split = Split(packed, "a", {"a": 0.5, "b": 0.5})
    own = split.blocks
    assert own is not None and own.window == 2
    for number, (start, stop) in enumerate(zip(own.bounds[:-1], own.bounds[1:], strict=True)):
        inside = split.indices[start:stop]
        assert ((inside >= blocks.bounds[number]) & (inside < blocks.bounds[number + 1])).all()
    tiled = Tiled(packed, size=16)
    tiles = tiled.blocks
    assert tiles is not None and tiles.bounds[-1] == len(tiled)
    for number, start in enumerate(tiles.bounds[:-1].tolist()):
        assert tiled.window(start)[0] == blocks.bounds[number]
    part = Mixture({"m": packed}).parts[0]
    assert part.blocks is not None and np.array_equal(part.blocks.bounds, blocks.bounds)
    assert Packed(tmp_path / "packed", window=None).blocks is None


def test_the_decoded_cache_keeps_packed_samples(tmp_path: Path) -> None:
    """Also for the next run, that has other connections."""
    folder = packed_folder(tmp_path / "packed")
    for _ in range(2):
        packed = Packed(folder, cache=tmp_path / "cache")
        cached = Cached(packed, CacheOptions(folder=str(tmp_path / "kept")))
        for index in (3, 3, 5):
            assert_same(cached[index], Numbered()[index])
    assert len(list((tmp_path / "kept").iterdir())) == 1
    for path in (tmp_path / "cache").glob("*/*.tar"):
        path.unlink()
    assert_same(cached[5], Numbered()[5])
    for index in (3, 5):
        cached.expect(index)
    assert packed._store._ahead is None  # type: ignore[attr-defined]  # what is kept is not fetched
    cached.expect(0)
    assert packed._store._ahead is not None  # type: ignore[attr-defined]


def test_how_a_set_is_reached_does_not_name_it(tmp_path: Path) -> None:
    address = f"file://{packed_folder(tmp_path / 'packed')}"
    options: tuple[dict[str, Any] | None, ...] = (None, {"auto_mkdir": True})
    sources = [Packed(address, cache=tmp_path / "cache", storage_options=option) for option in options]
    assert source_digest(sources[0]) == source_digest(sources[1])


class Dying(Numbered):
    """Kills the process, as a power cut would, at one image."""

    def __getitem__(self, index: int) -> Sample:
        if index == 13:
            os._exit(9)
        return super().__getitem__(index)


def test_a_killed_packing_is_refused_and_continued_to_the_same_files(tmp_path: Path) -> None:
    whole = packed_folder(tmp_path / "whole")
    child = os.fork()
    if child == 0:
        packed_folder(tmp_path / "packed", Dying())
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = {path.name for path in (tmp_path / "packed").iterdir()}
    assert "packed.json" not in left and "shard-00000.tar" in left and any(name.endswith(".part") for name in left)
    with pytest.raises(DataError, match="packed: the packing was not finished; run the same") as refused:
        Packed(tmp_path / "packed")
    assert "\n" not in str(refused.value)
    read: list[int] = []

    class Watched(Numbered):
        def __getitem__(self, index: int) -> Sample:
            read.append(index)
            return super().__getitem__(index)

    outcome = pack(Watched(), tmp_path / "packed", "test", shard_bytes=12_000)
    assert 0 < read[0] <= 13 and outcome.written == len(read) < 20  # what was done is not done again
    assert contents(tmp_path / "packed") == contents(whole)
    assert pack(Watched(), tmp_path / "packed", "test", shard_bytes=12_000).written == 0


def test_nothing_depends_on_the_workers(tmp_path: Path) -> None:
    assert contents(packed_folder(tmp_path / "a")) == contents(packed_folder(tmp_path / "b", workers=2))


def test_images_that_cannot_be_read(tmp_path: Path) -> None:
    source = Mixture({"a": Numbered(length=6, broken=(0, 5)), "b": Numbered(length=6, broken=(2,))})
    with pytest.raises(DataError, match=r"0\.png: broken"):
        pack(source, tmp_path / "strict", "test")
    outcome = pack(source, tmp_path / "packed", "test", shard_bytes=4000, tolerant=True)
    assert outcome.manifest.skipped == (("0.png", "broken"), ("5.png", "broken"), ("2.png", "broken"))
    packed = Packed(tmp_path / "packed")
    kept = [1, 2, 3, 4, 6, 7, 9, 10, 11]
    assert [packed.identity(i)[0] for i in range(len(packed))] == [source[i].image_id for i in kept]
    assert [(part.start, part.stop) for part in packed.parts] == [(0, 4), (4, 9)]
    with pytest.raises(DataError, match="nothing to pack"):
        pack(Numbered(length=1, broken=(0,)), tmp_path / "none", "test", tolerant=True)


LEFT_OUT = tuple((f"{index}.png", "broken") for index in (1, 18, 19))


def _pack_with_gaps(folder: Path, source: Source | None = None, tolerant: bool = True) -> Manifest:
    source = Numbered(broken=(1, 18, 19)) if source is None else source
    return pack(source, folder, "test", shard_bytes=12_000, tolerant=tolerant).manifest


def test_what_was_left_out_is_noted_in_the_set(tmp_path: Path) -> None:
    """In a shard and after the last one, also by a run that was killed."""
    assert _pack_with_gaps(tmp_path / "whole").skipped == LEFT_OUT
    assert _pack_with_gaps(tmp_path / "whole").skipped == LEFT_OUT  # packed already
    child = os.fork()
    if child == 0:
        _pack_with_gaps(tmp_path / "packed", Dying(broken=(1, 18, 19)))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    refusal = r"packed without {} image\(s\) that could not be read, such as 1\.png; pack into another --output"
    with pytest.raises(DataError, match=refusal.format(1)) as refused:
        _pack_with_gaps(tmp_path / "packed", Numbered(), tolerant=False)
    assert "\n" not in str(refused.value)
    assert _pack_with_gaps(tmp_path / "packed").skipped == LEFT_OUT
    assert contents(tmp_path / "packed") == contents(tmp_path / "whole")
    with pytest.raises(DataError, match=refusal.format(3)):
        _pack_with_gaps(tmp_path / "packed", Numbered(), tolerant=False)
    manifest = tmp_path / "packed" / "packed.json"
    content = json.loads(manifest.read_text())
    del content["skipped"]  # as it was packed before this was noted
    manifest.write_text(json.dumps(content))
    assert _pack_with_gaps(tmp_path / "packed", tolerant=False).skipped == ()
    assert len(Packed(tmp_path / "packed")) == 17


def test_the_command_names_what_was_left_out_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_nuclei(tmp_path / "data")
    (tmp_path / "data" / "train" / "1.png").write_bytes(b"broken")
    words = ["pack", "--config", str(CONFIGS / "nuclei.yaml"), "--data.root", str(tmp_path / "data")]
    words += ["--output", str(tmp_path / "packed"), "--splits", "train", "--data.num_workers=0"]
    for again in (False, True):
        status, message = fails(capsys, *words, "--data.on_error=skip")
        assert status == 3 and message.count("\n") == 1
        assert message.startswith("skipped: ") and "1.png: this is not an image file" in message, again
    status, message = fails(capsys, *words)
    assert status == 1 and message.count("\n") == 1
    assert "packed without 1 image(s)" in message and "pack into another --output" in message


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    with pytest.raises(DataError, match="other data or options; give another --output"):
        pack(Numbered(), folder, "another")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="it contains other files; give another --output"):
        pack(Numbered(), tmp_path / "full", "test")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "packing.json").write_text("{}")
    with pytest.raises(DataError, match="an unfinished pack of other data"):
        pack(Numbered(), tmp_path / "begun", "test")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="it cannot be written to"):
        pack(Numbered(), tmp_path / "file", "test")


def test_two_cannot_pack_into_one_folder(tmp_path: Path) -> None:
    class Twice(Numbered):
        def __getitem__(self, index: int) -> Sample:
            child = os.fork()
            if child == 0:
                try:
                    pack(Numbered(), tmp_path, "test", shard_bytes=12_000)
                except DataError as error:
                    os._exit(7 if "another process is packing into it" in str(error) else 8)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            raise DataError("seen")

    with pytest.raises(DataError, match="seen"):
        pack(Twice(), tmp_path, "test", shard_bytes=12_000)
    assert len(pack(Numbered(), tmp_path, "test", shard_bytes=12_000).manifest.shards) > 5


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    (tmp_path / ".shard-00000.tar.part").symlink_to("/dev/full")
    (tmp_path / "packing.json").write_text(
        json.dumps({"format": "ocrnet_pl packed", "version": 1, "source": "test", "samples": 20, "shard_bytes": 12_000})
    )
    with pytest.raises(DataError, match=r"No space left on device.*free some space and run the same command again"):
        pack(Numbered(), tmp_path, "test", shard_bytes=12_000)


def test_options(tmp_path: Path) -> None:
    folder = packed_folder(tmp_path / "packed")
    assert len(Packed("packed", root=tmp_path)) == 20
    with pytest.raises(ValueError, match="window must be at least 1"):
        Packed(folder, window=0)
    with pytest.raises(ValueError, match="cache_gb must be a positive"):
        Packed(folder, cache_gb=0)
    with pytest.raises(
        DataError, match=r"a window of 3 shards .* the cache is limited to 5e-05; raise `cache_gb`, or lower"
    ):
        Packed(folder, cache=tmp_path / "cache", cache_gb=5e-5, window=3)
    with pytest.raises(DataError, match="all shards and the index"):
        Packed(folder, cache=tmp_path / "cache", cache_gb=5e-5, window=None)
    with pytest.raises(DataError, match=r"nosuch://bucket: this is not an address"):
        Packed("nosuch://bucket")


def test_images_of_every_kind_come_from_memory_as_from_their_files(tmp_path: Path) -> None:
    import tifffile

    from ocrnet_pl.imaging.image_files import Encoded
    from ocrnet_pl.imaging.images import check_image, read_image

    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (20, 30), dtype=np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(random.integers(0, 65536, (20, 30), dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(random.integers(0, 256, (20, 30, 4), dtype=np.uint8), mode="CMYK").save(tmp_path / "cmyk.jpg")
    tifffile.imwrite(
        tmp_path / "many.tif", random.integers(0, 256, (7, 20, 30), dtype=np.uint8), photometric="minisblack"
    )
    for path, channels in (("grey.png", 3), ("grey.png", 1), ("deep.png", 3), ("cmyk.jpg", 3), ("many.tif", 7)):
        data = Encoded((tmp_path / path).read_bytes(), path)
        assert torch.equal(read_image(data, channels=channels), read_image(tmp_path / path, channels=channels))
        assert check_image(data) == (20, 30)
    with pytest.raises(DataError, match="somewhere: this is not an image file"):
        read_image(Encoded(b"no", "somewhere"))
