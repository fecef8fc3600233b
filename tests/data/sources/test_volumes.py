"""Slices of NIfTI and DICOM against arrays written by hand, where the libraries are installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ocrnet_pl.data.readers.volume_files import windowed
from ocrnet_pl.data.sources.volumes import MedicalVolumes
from ocrnet_pl.errors import DataError
from tests.helpers.map_files import maps

NAMES: Any = ["background", "organ", "lesion"]
LABELS = np.zeros((3, 6, 8), dtype=np.uint8)  # slices, rows, columns
LABELS[1, 1:5, 1:6], LABELS[1, 2, 2], LABELS[1, 4, 4:6] = 1, 2, 2
VALUES = np.linspace(-1000, 1000, LABELS.size).reshape(LABELS.shape).astype(np.int16)


def nifti(path: Path, slices: np.ndarray) -> None:
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(slices.transpose(2, 1, 0), np.eye(4)), path)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_slices_of_nifti(tmp_path: Path, ending: str) -> None:
    nifti(tmp_path / f"imagesTr/case_0000{ending}", VALUES)
    nifti(tmp_path / f"labelsTr/case{ending}", LABELS)
    options: dict[str, Any] = {"window": (40, 400), "image_suffix": "_0000", "root": tmp_path}
    source = MedicalVolumes("imagesTr", NAMES, "labelsTr", ["lesion"], **options)
    assert len(source) == 3 and source.sizes.tolist() == [[6, 8]] * 3 and source.blocks.bounds.tolist() == [0, 3]
    sample = source[1]
    assert sample.image_id == "case_0000:1"
    expected = np.clip((VALUES[1] + 160.0) / 400 * 255, 0, 255).round()
    assert np.array_equal(sample.image[0], expected) and np.array_equal(sample.image[2], expected)
    instances, semantic = maps(sample)
    assert np.array_equal(semantic, LABELS[1]) and sample.boxes.tolist() == [[2, 2, 3, 3], [4, 4, 6, 5]]
    assert np.array_equal(instances > 0, LABELS[1] == 2) and len(source[0].boxes) == 0
    large = MedicalVolumes("imagesTr", NAMES, "labelsTr", ["lesion"], min_pixels=2, **options)
    assert large[1].boxes.tolist() == [[4, 4, 6, 5]]
    other = MedicalVolumes("imagesTr", NAMES, "labelsTr", axis=0, image_suffix="_0000", root=tmp_path)
    assert len(other) == 8 and np.array_equal(other[4].semantic, LABELS[:, :, 4])  # type: ignore[arg-type]


def test_dicom_with_pngs(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed")
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = meta.MediaStorageSOPInstanceUID = "1.2.3"
    content = pydicom.Dataset()
    content.file_meta = meta
    content.Rows, content.Columns, content.BitsAllocated, content.BitsStored, content.HighBit = 6, 8, 16, 16, 15
    content.SamplesPerPixel, content.PixelRepresentation, content.PhotometricInterpretation = 1, 1, "MONOCHROME2"
    content.RescaleSlope, content.RescaleIntercept = "2", "-10"
    content.WindowCenter, content.WindowWidth = ["40", "50"], ["400", "1"]
    content.PixelData = VALUES[1].tobytes()
    (tmp_path / "dicom").mkdir()
    content.save_as(tmp_path / "dicom/a.dcm", enforce_file_format=True)
    (tmp_path / "masks").mkdir()
    Image.fromarray(LABELS[1]).save(tmp_path / "masks/a.png")
    source = MedicalVolumes("dicom", NAMES, "masks", ["lesion"], root=tmp_path)
    expected = np.clip((VALUES[1] * 2.0 - 10 + 160) / 400 * 255, 0, 255).round()
    assert np.array_equal(source[0].image[0], expected) and len(source[0].boxes) == 2
    (tmp_path / "dicom/a.dcm").write_bytes(b"x" * 500)
    with pytest.raises(DataError, match=r"a\.dcm: the volume cannot be read"):
        MedicalVolumes("dicom", NAMES, "masks", root=tmp_path)


def test_broken_volumes_and_label_maps_that_do_not_fit(tmp_path: Path) -> None:
    nifti(tmp_path / "images/a.nii.gz", VALUES)
    nifti(tmp_path / "labels/a.nii.gz", LABELS[:, :5])
    with pytest.raises(DataError, match=r"labels/a\.nii\.gz: it is \(3, 5, 8\), but .* is \(3, 6, 8\)"):
        MedicalVolumes("images", NAMES, "labels", root=tmp_path)[0]
    nifti(tmp_path / "labels/a.nii.gz", LABELS + 0.5)
    with pytest.raises(DataError, match="its values are not whole numbers"):
        MedicalVolumes("images", NAMES, "labels", root=tmp_path)[0]
    whole = (tmp_path / "images/a.nii.gz").read_bytes()
    for content in (b"", b"x" * 400, whole[:60]):
        (tmp_path / "images/a.nii.gz").write_bytes(content)
        with pytest.raises(DataError, match=r"images/a\.nii\.gz: the volume cannot be read"):
            MedicalVolumes("images", NAMES, "labels", root=tmp_path)[0]


@pytest.mark.parametrize(("name", "library"), [("a.nii", "nibabel"), ("a.dcm", "pydicom")])
def test_without_the_library_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"run `pip install {library}`"):
        MedicalVolumes(".", NAMES, ".", root=tmp_path)


def test_options_and_the_window(tmp_path: Path) -> None:
    for options, words in (
        ({"classes": ["cyst"]}, "'cyst' is not in `semantic_names`"),
        ({"window": (40, 0)}, "the width is not above 0"),
        ({}, "there is no volume"),
    ):
        with pytest.raises(DataError, match=words):
            MedicalVolumes(".", NAMES, ".", root=tmp_path, **options)  # type: ignore[arg-type]
    assert windowed(np.array([-200, -160, 40, 240, 900]), (40, 400)).tolist() == [0, 0, 128, 255, 255]
