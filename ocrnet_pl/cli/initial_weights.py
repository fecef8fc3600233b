"""The options ``init_from``, ``init_map`` and ``init_keep`` of ``fit``: what a run starts from."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ocrnet_pl.cli.replaced_weights import ReplacedWeights
from ocrnet_pl.data.datamodule import JointDataModule
from ocrnet_pl.drawing.transfer_table import transfer_table
from ocrnet_pl.errors import CheckpointError, UsageError
from ocrnet_pl.models.base import Encoder
from ocrnet_pl.models.class_map import Names
from ocrnet_pl.models.transfer_report import HEADER, TransferReport
from ocrnet_pl.storage.initial_weights import read_initial_weights
from ocrnet_pl.storage.trusted_classes import build_parts, named_packages
from ocrnet_pl.structures import Taxonomy
from ocrnet_pl.training.starting import init_from, keep_classes, kept_classes
from ocrnet_pl.training.task import OCRNetTask


def add_init_options(parser: LightningArgumentParser) -> None:
    """Add the three options to a parser."""
    parser.add_argument(
        "--init_from",
        type=str | None,
        default=None,
        help="File whose weights a new run starts from: a checkpoint, a saved network, a state dict "
        "or a .safetensors file; "
        "null for none.",
    )
    parser.add_argument(
        "--init_map",
        type=dict[str, str | list[str]] | None,
        default=None,
        help="New name of classes of init_from, or a list of several, such as {car: vehicle, truck: vehicle}; "
        "a class without an entry goes to the one of the same name.",
    )
    parser.add_argument(
        "--init_keep",
        type=bool,
        default=False,
        help="Whether the classes of init_from that the data does not have stay in the network; the data is not "
        "labelled for them.",
    )


class StartingWeights:
    """The weights that a command line lets a run start from.

    Args:
        file: File of the weights.
        names: New names of its classes.
        keep: Whether its classes that the data does not have stay.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or contains no weights.
        UsageError: Classes shall be kept, and a name is unknown, or the file names none.
    """

    def __init__(self, file: str, names: Names, keep: bool) -> None:
        self.names = names
        self.keep = keep
        self.given = read_initial_weights(file)
        if keep:
            # Before anything is built.
            kept_classes(self.given, names)

    def taxonomy(self, data: JointDataModule) -> Taxonomy:
        """Return the categories of the run: those of the data and, if they are kept, those of the file."""
        return keep_classes(data, self.given, self.names) if self.keep else data.taxonomy

    def has_all_of(self, encoder: Namespace) -> bool:
        """Return whether the file has all weights of an encoder that was to begin with pretrained ones.

        Such an encoder needs no other weights. To know what its own are, it is built without them.

        Args:
            encoder: Its config, with environment variables resolved.
        """
        encoder = encoder.clone()
        if not ReplacedWeights(encoder):
            return False
        spec = encoder.as_dict()
        try:
            with torch.random.fork_rng(devices=[]):
                own = build_parts({"encoder": spec}, {"encoder": Encoder}, named_packages(spec), "model")["encoder"]
        except CheckpointError:
            # The network is built in the same way, and says it better.
            return False
        weights = self.given.weights
        return all(
            name in weights and weights[name].shape == value.shape
            for name, value in ((f"encoder.{name}", value) for name, value in own.state_dict().items())
        )

    def put_into(self, task: OCRNetTask) -> None:
        """Let a task start from the weights, and print what was taken."""
        _show(init_from(task, self.given, self.names), self.given.path)


def starting_weights(file: str | None, names: Names | None, keep: bool) -> StartingWeights | None:
    """Return the weights that a new run starts from; None for its own.

    Args:
        file: The option ``init_from``, with environment variables resolved.
        names: The option ``init_map``.
        keep: The option ``init_keep``.

    Raises:
        UsageError: Options for the weights are given, but no file.
        FileNotFoundError: There is no such file.
        CheckpointError: It is damaged, or contains no weights.
    """
    if file is not None:
        return StartingWeights(file, names or {}, keep)
    for option, value in (("init_map", names), ("init_keep", keep)):
        if value:
            raise UsageError(f"{option}: there is nothing that it belongs to; give --init_from FILE")
    return None


def refuse_both(words: Sequence[str]) -> None:
    """Raise an error for a command line, its configs aside, that both starts from a file and continues from one.

    Raises:
        UsageError: It has both options.
    """
    pairs = (word.partition("=")[::2] for word in words)
    # The last word on each counts.
    given = {name: value or after for (name, value), after in zip(pairs, [*words[1:], ""], strict=True)}
    if all(given.get(name, "null") != "null" for name in ("--init_from", "--ckpt_path")):
        raise UsageError(
            "init_from and ckpt_path are both given: ckpt_path continues a run, with its own weights; init_from starts "
            "a new one; give one of them"
        )


@rank_zero_only
def _show(report: TransferReport, file: str) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        sys.stderr.write("".join(f"init_from: {line}\n" for line in report.lines()))
        return
    console.print(transfer_table(HEADER, report.rows(), file))
    for note in report.notes:
        print(note)
