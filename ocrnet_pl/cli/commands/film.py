"""``film``: predict on a film, a camera or a stream, draw it, and follow the objects."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ocrnet_pl.cli.command import Command, Run

if TYPE_CHECKING:
    from lightning.pytorch.cli import LightningArgumentParser

    from ocrnet_pl.inference.film_prediction import PredictedFrame

_NEARLY_ALL = 0.95
"""Share of the length in a film's header that the pictures of a whole film reach; sound may be longer than they are."""


def add_arguments(parser: LightningArgumentParser) -> None:
    """Add the options for the checkpoint, the film, and what is written."""
    parser.add_argument("--ckpt_path", type=str | None, default=None, help="Checkpoint to predict with; required.")
    parser.add_argument(
        "--source",
        type=str | None,
        default=None,
        help="Path of the film, camera:0 for the first camera, or an address, such as rtsp://...; required.",
    )
    parser.add_argument(
        "--output",
        type=Path | None,
        default=None,
        help="File for the drawn film, such as out.mp4, beside which a table of all objects is written as out.csv; "
        "null for NAME-predicted.mp4 in the current folder.",
    )
    parser.add_argument("--track", type=bool, default=False, help="Whether objects are followed from frame to frame.")
    parser.add_argument("--min_score", type=float, default=0.3, help="Score below which objects are left out, 0 to 1.")
    parser.add_argument(
        "--seconds", type=float | None, default=None, help="Length in seconds after which to stop; null for the end."
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="Whether an existing output is replaced.")


def predict_on_film(run: Run) -> int:
    """Predict on a film frame by frame, and return the status to exit with.

    Raises:
        DataError: The film cannot be read or written.
        UsageError: There is no source, or a file is in the way.
    """
    import itertools
    import math

    import torch
    from lightning.pytorch.utilities.rank_zero import rank_zero_warn

    from ocrnet_pl.cli.unbuilt_parts import made, named_part
    from ocrnet_pl.cli.what_to_predict import refuse_image
    from ocrnet_pl.drawing.progress import Progress
    from ocrnet_pl.errors import UsageError
    from ocrnet_pl.imaging.films import CAMERA, Film, container_name
    from ocrnet_pl.inference.film_prediction import predict_film, write_film
    from ocrnet_pl.inference.multiscale import MultiScale
    from ocrnet_pl.inference.object_tracks import ObjectTracks
    from ocrnet_pl.inference.tiled_inference import Tiling
    from ocrnet_pl.models.base import PostProcess
    from ocrnet_pl.serving.served_network import checkpoint_network
    from ocrnet_pl.storage.files import same_file

    config = run.config
    source = config["source"]
    if source is None:
        raise UsageError("source: there is no film; give --source FILE, camera:0 or an address")
    refuse_image(config)
    name = "camera" if source.startswith(CAMERA) else Path(source.partition("?")[0]).stem or "film"
    output = config["output"] or Path(f"{name}-predicted.mp4")
    container_name(output)
    if same_file(source, output):
        raise UsageError(f"output {str(output)!r}: it is the film itself, which would be lost; give another --output")
    for path in (output, output.with_suffix(".csv")):
        if path.exists() and not config["overwrite"]:
            raise UsageError(f"output {str(path)!r}: it exists; give another --output, or --overwrite true")
    if not 0 <= config["min_score"] <= 1:
        raise UsageError(f"min_score: expected 0 to 1, got {config['min_score']}")
    if config["seconds"] is not None and not 0 < config["seconds"] < math.inf:
        raise UsageError(f"seconds: expected a length above 0, got {config['seconds']}; null for the whole film")
    wants_cpu = config["trainer"]["accelerator"] == "cpu" or not torch.cuda.is_available()
    device = "cpu" if wants_cpu else "cuda"
    postprocess = named_part(PostProcess, config["model"]["postprocess"])
    network = checkpoint_network(config["ckpt_path"], device, config["trust"], postprocess)
    tile, multiscale = (
        made(kind, config["model"][name]) for kind, name in ((Tiling, "tile"), (MultiScale, "multiscale"))
    )
    film = Film(source)
    tracks = ObjectTracks(float(film.rate)) if config["track"] else None
    # A camera's frames are shown as they come.
    batch_size = 1 if film.live else None
    limit, objects, number, end = config["seconds"], 0, 0, 0.0
    found = predict_film(network, film, tracks=tracks, tile=tile, multiscale=multiscale, batch_size=batch_size)
    if limit is not None:
        found = itertools.takewhile(lambda frame: frame.seconds < limit, found)
    if film.live:
        found = _until_interrupted(found)
    with Progress() as progress:
        count = film.count if limit is None or film.count is None else min(film.count, round(limit * film.rate))
        work = progress.add(f"predicting on {film.name}", count)
        try:
            for frame in write_film(found, output, film, score=config["min_score"]):
                number, end = number + 1, frame.seconds
                objects += int((frame.prediction.scores >= config["min_score"]).sum())
                work.advance()
        finally:
            work.finish()
    if limit is None and not film.live and film.seconds is not None and end < _NEARLY_ALL * film.seconds - 1:
        rank_zero_warn(
            f"film {film.name!r}: its last picture is at {end:.1f} of {film.seconds:.1f} s; it may have been cut off"
        )
    print(f"{number} frames, {objects} objects: {output}, {output.with_suffix('.csv')}")
    return 0


def _until_interrupted(frames: Iterator[PredictedFrame]) -> Iterator[PredictedFrame]:
    """Yield frames until Ctrl-C, which is the only end that a camera has."""
    from ocrnet_pl.distributed.signals import signals_handled

    interrupted = False

    def note(*_: object) -> None:
        nonlocal interrupted
        interrupted = True

    # An exception could come while a frame is drawn or written, and the whole film would be lost.
    with signals_handled(note, signal.SIGINT):
        for frame in frames:
            yield frame
            if interrupted:
                return


COMMAND = Command(
    name="film",
    help="predict on a film, a camera or a stream, and draw it",
    run=predict_on_film,
    arguments=add_arguments,
    needs_checkpoint=True,
    uses_of_model=("postprocess", "tile", "multiscale"),
    options=(("--source FILE", "of film: a film, camera:0 or an address; also --output FILE and --track true"),),
)
