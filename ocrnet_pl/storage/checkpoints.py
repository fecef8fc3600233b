"""Checkpoints: written whole or not at all, read verified and never executed, compared with the run that reads them."""

from __future__ import annotations

import platform
import zipfile
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ocrnet_pl.errors import CheckpointError, one_line
from ocrnet_pl.storage.earlier_settings import config_now
from ocrnet_pl.storage.exported_files import is_exported
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.version import __version__

VERSIONS_KEY = "versions"
CONFIG_KEY = "config"
_ENTRIES: dict[str, Any] = {
    "epoch": int,
    "global_step": int,
    "state_dict": Mapping,
    "current_model_state": Mapping,
    "callbacks": Mapping,
    "loops": Mapping,
    "optimizer_states": list,
    "lr_schedulers": list,
}
"""The types of the entries that Lightning restores."""
_MEMBERS: dict[str, Any] = {
    "state_dict": torch.Tensor,
    "current_model_state": torch.Tensor,
    "callbacks": Mapping,
    "optimizer_states": Mapping,
    "lr_schedulers": Mapping,
}
"""The types of what each entry contains; keys of mappings are texts."""

_PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "timm")


def versions() -> dict[str, str]:
    """Return the versions of Python, this project and the packages that a run depends on."""
    own = {"python": platform.python_version(), "ocrnet_pl": __version__}
    return own | {package: _installed(package) for package in _PACKAGES}


@cache
def _installed(package: str) -> str:
    """Return the version of a package, whose files of many lines every checkpoint would read again."""
    return metadata.version(package)


def verify_checkpoint(path: str | Path) -> None:
    """Compare the whole content of a checkpoint with the checksums stored in it.

    Args:
        path: Path of the checkpoint, which is read once from beginning to end.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It may not be read, is not a checkpoint, was cut off, or has changed since it was written.
    """
    if not Path(path).is_file():
        found = "it is a folder; name the file in it" if Path(path).is_dir() else "no such file"
        raise FileNotFoundError(f"checkpoint {str(path)!r}: {found}")
    try:
        with zipfile.ZipFile(path) as archive:
            # torch does not compress its files; without this check a small file could fill the memory.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise zipfile.BadZipFile("compressed")
            damaged = archive.testzip()
    except PermissionError as error:
        raise CheckpointError(
            f"checkpoint {str(path)!r}: it cannot be read ({error.strerror}); change its rights"
        ) from error
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, NotImplementedError, ValueError) as error:
        raise _unreadable(path) from error
    if damaged is not None:
        raise CheckpointError(f"checkpoint {str(path)!r}: damaged, the checksum of its entry {damaged!r} is wrong")


def _unreadable(path: str | Path) -> CheckpointError:
    if is_exported(str(path)):
        return CheckpointError(
            f"checkpoint {str(path)!r}: it is an exported file; give the checkpoint that it was made from"
        )
    return CheckpointError(f"checkpoint {str(path)!r}: unreadable; it is not a checkpoint, or not complete")


def require_device(device: str | torch.device) -> None:
    """Raise ValueError if tensors cannot be put onto a device, such as a GPU that this machine does not have."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = one_line(error)[:300].rstrip(".")
        raise ValueError(
            f"map_location {str(device)!r}: this device cannot be used here ({reason}); use 'cpu'"
        ) from error


def read_checkpoint(path: str | Path, map_location: str | torch.device = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Verify and load a checkpoint; nothing in it is executed.

    Args:
        path: Path of a checkpoint that training wrote.
        map_location: Device for the weights.
        mmap: Whether the weights stay in the file until they are used.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or not a checkpoint.
        ValueError: The device cannot be used.
    """
    verify_checkpoint(path)
    # Whatever goes wrong from here on is the file's fault.
    require_device(map_location)
    try:
        content = torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except Exception as error:  # A forged file can raise anything.
        raise _unreadable(path) from error
    check_entries(content, path)
    return content  # type: ignore[no-any-return]


def write_checkpoint(content: Mapping[str, Any], path: str | Path) -> None:
    """Write a checkpoint, which appears when it is on the disk; whatever happens before, the earlier file remains.

    Args:
        content: Its content.
        path: Path of the file.

    Raises:
        OSError: The disk refuses it.
    """
    with complete_file(path, durable=True) as unfinished, unfinished.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            # The error that torch raises for a write that failed.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def check_entries(content: Any, path: str | Path) -> None:
    """Check that a checkpoint's entries have the types that training writes.

    Args:
        content: Content of the checkpoint.
        path: Path for error messages.

    Raises:
        CheckpointError: They have other types.
    """
    if not isinstance(content, dict):
        raise CheckpointError(f"checkpoint {str(path)!r}: it does not contain a training run")
    for name, kind in _ENTRIES.items():
        if name in content and not isinstance(content[name], kind):
            raise CheckpointError(f"checkpoint {str(path)!r}: {name}: not what training writes")
    for name, kind in _MEMBERS.items():
        entry = content.get(name, {})
        names, members = (entry, entry.values()) if isinstance(entry, Mapping) else ((), entry)
        if not (all(isinstance(each, str) for each in names) and all(isinstance(each, kind) for each in members)):
            raise CheckpointError(f"checkpoint {str(path)!r}: {name}: not what training writes")


def need_entries(content: Mapping[str, Any], path: str | Path, *names: str) -> None:
    """Check that a checkpoint has entries.

    Args:
        content: Content of the checkpoint.
        path: Path for error messages.
        names: The entries.

    Raises:
        CheckpointError: One is missing, as in weights that another program wrote.
    """
    for name in names:
        if name not in content:
            raise CheckpointError(f"checkpoint {str(path)!r}: no entry {name!r}; it is not one of this project")


def usable_checkpoint(path: str | Path) -> tuple[Path, str | None]:
    """Return the checkpoint itself or, for a damaged or missing ``last.ckpt``, the newest whole one in its folder.

    A run may lose its ``last.ckpt`` as it is cut off; the others there are of the same run. Any other file was meant.

    Args:
        path: The requested checkpoint.

    Returns:
        What to load, and in one line why it is not the requested one; None if it is.

    Raises:
        FileNotFoundError: There is no such file, nor, for a ``last.ckpt``, a whole one next to it.
        CheckpointError: It is damaged, and, for a ``last.ckpt``, no other one next to it is whole.
    """
    asked = Path(path)
    try:
        verify_checkpoint(asked)
    except (CheckpointError, FileNotFoundError) as error:
        if asked.name != "last.ckpt":
            raise
        others = [other for other in asked.parent.glob("*.ckpt") if other != asked and other.is_file()]
        for other in sorted(others, key=lambda file: file.stat().st_mtime, reverse=True):
            try:
                verify_checkpoint(other)
            except CheckpointError:
                continue
            return other, f"{error}; continuing from {str(other)!r} instead"
        raise
    return asked, None


def differences(checkpoint: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> list[str]:
    """Return what differs between the run that wrote a checkpoint and this one, one entry per difference.

    Args:
        checkpoint: Content of the checkpoint.
        config: Config of this run; None compares only the versions.
    """
    found = []
    was = checkpoint.get(VERSIONS_KEY)
    if was is None:
        found.append(f"written by a version of ocrnet_pl before {__version__} that did not record versions")
    elif not isinstance(was, Mapping) or not all(_is_word(version) for version in was.values()):
        found.append("its versions are not valid")
    else:
        now = versions()
        found += [f"{name} {was.get(name, 'absent')} -> {now[name]}" for name in now if was.get(name) != now[name]]
    if config is not None and CONFIG_KEY in checkpoint:
        old = dict(flat_config(config_now(checkpoint[CONFIG_KEY])))
        new = dict(flat_config(config))
        found += [
            f"{key} {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
            for key in [*new, *(key for key in old if key not in new)]
            if old.get(key, "absent") != new.get(key, "absent")
        ]
    return found


def misfit(
    name: str, fits: Mapping[str, torch.Size], given: Mapping[str, torch.Size], checkpoint: Mapping[str, Any]
) -> str:
    """Return in one line why a checkpoint's weights do not fit a network.

    Args:
        name: Name of the checkpoint.
        fits: The shapes of the network's weights.
        given: The shapes of the checkpoint's weights.
        checkpoint: Content of the checkpoint.
    """
    absent = [key for key in fits if key not in given]
    foreign = [key for key in given if key not in fits]
    shapes = [
        f"{key} {list(given[key])} for {list(fits[key])}" for key in fits if given.get(key, fits[key]) != fits[key]
    ]
    parts = [
        f"{len(keys)} {what}, such as {keys[0]}"
        for keys, what in ((absent, "absent"), (foreign, "unknown"), (shapes, "of another shape"))
        if keys
    ]
    return f"{name} contains weights of another network: {'; '.join([*parts, *differences(checkpoint)])}"


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 60 and value.isprintable()


def config_to_repeat(path: str, refusal: str) -> tuple[Path, Any]:
    """Return the checkpoint that a run continues from, and its config, whose choices the run repeats.

    Args:
        path: The checkpoint that was asked for.
        refusal: What to say of an address, which is not read.

    Returns:
        The path of the checkpoint that stands for it, and its config as it is stored; None if it has none.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is an address, or damaged.
    """
    if "://" in path:
        raise CheckpointError(f"{refusal}; give the run's own config.yaml instead")
    found, _ = usable_checkpoint(path)
    return found, read_checkpoint(found, mmap=True).get(CONFIG_KEY)


def config_value(config: Any, key: str) -> Any:
    """Return what a nested config has under a dotted key; None where it has nothing."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def flat_config(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings of a nested config, each with its dotted key.

    Args:
        value: The config, as read from YAML.
        key: Key of the config in a larger one.
    """
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from flat_config(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, list(value) if isinstance(value, tuple) else value
