"""``init``: recognise the format of a folder and write a config for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run
from ocrnet_pl.cli.exit_codes import EXIT_ERROR

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

_UNKNOWN_SIZE = (512, 512)
"""Input size to check objects against where the data cannot be read far enough to choose one."""


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the folder, the config's path, and the number of images to check."""
    from jsonargparse.typing import PositiveInt

    parser.add_argument("folder", type=Path, help="Folder of the data set.")
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="Path of the config to write; null for NAME.yaml of the folder.",
    )
    parser.add_argument("--limit", type=PositiveInt, default=500, help="Number of images to check per split.")


def init(run: Run) -> int:
    """Write a config for a folder, check its data, and return the status to exit with.

    Raises:
        DataError: The format is not known, a file is broken, or the config exists.
    """
    import torch
    import yaml

    from ocrnet_pl.cli.data_choices import measure
    from ocrnet_pl.cli.first_config import Sources, opened, recipe, with_all_classes, write_config
    from ocrnet_pl.data.guessing.recognise import arranged, recognise
    from ocrnet_pl.doctor.run import run_check
    from ocrnet_pl.errors import DataError
    from ocrnet_pl.storage.files import complete_file

    folder = run.config["folder"].expanduser()
    name = "".join(sign if sign.isalnum() or sign in "_-" else "_" for sign in folder.resolve().name) or "data"
    output = run.config["output"] or Path(f"{name}.yaml")
    if output.exists():
        raise DataError.at(output, "the file exists", advice="remove it, or give another one with --output FILE")
    guess = recognise(folder)
    page = f"docs/formats/{guess.page}.md".replace("docs/formats/../", "docs/")
    print(f"format: {guess.page.rpartition('/')[2]}, because {guess.reason}; see {page}")

    def checked(size: tuple[int, int]) -> int:
        return run_check(
            {split: recipe(kind, options, folder) for split, (kind, options) in sources.items()},
            output=Path(run.config["trainer"]["default_root_dir"], name, "check"),
            fix=None,
            limit=run.config["limit"],
            input_size=size,
            workers=0,
            title=name,
        )

    sources: Sources = arranged(guess)
    try:
        sources = with_all_classes(sources, folder)
        source = opened(*sources["train"], folder)
        taxonomy, statistics = source.taxonomy, measure(source)
    except DataError as error:
        # A reader stops at the first entry that it cannot use; the check names all of them.
        if not checked(_UNKNOWN_SIZE):
            raise
        raise DataError(f"{output} is not written before the errors above are mended; the first: {error}") from error
    notes = [
        f"python train.py fit --config {output}",
        f"The format is {guess.page.rpartition('/')[2]}, because {guess.reason}: see {page}.",
    ]
    if guess.missing:
        notes.append(f"To do: {guess.missing}.")
    text = write_config(
        name,
        folder.resolve(),
        sources,
        statistics,
        detects=taxonomy.num_detection > 0,
        segments=taxonomy.num_semantic > 0,
        accelerated=torch.accelerator.is_available(),
        notes=tuple(notes),
    )
    with complete_file(output) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    names = [category.name for category in taxonomy.categories]
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    print(f"{output}: {len(source)} images to train on; {len(names)} classes: {shown}")
    if guess.missing:
        print(f"to do: {guess.missing}")
    config = yaml.safe_load(text)
    size = config["data"]["size"]
    errors = checked((size, size) if isinstance(size, int) else tuple(size))
    return EXIT_ERROR if errors else 0


COMMAND = Command(
    name="init",
    help="look at a folder, write a config for it, and check its data",
    run=init,
    arguments=add_arguments,
    options=(("init DIR", "as in `init path/to/data`: recognise the format; also --output FILE and --limit N"),),
)
