"""A small network taught by a larger one, against the small one alone that trains for the same time.

The teacher is trained once; its encoder is twice as wide. Then, one after the other in one process, the steps with and
without it are timed, and every seed trains the student with the teacher and, for as many more steps as fit into the
same time, the student alone. Finished runs in the folder are used as they are. Run:
``python benchmarks/distillation.py --folder runs/distillation``.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from pathlib import Path

import torch
from compare import METRICS, Results, run_of, table_of
from joint_speed import medians
from rich.console import Console

from ocrnet_pl.cli.running import build
from ocrnet_pl.report.runs import Run
from ocrnet_pl.storage.files import write_json
from ocrnet_pl.structures import Batch
from ocrnet_pl.training.task import OCRNetTask

TEACHER, STUDENT = "mobilenetv4_conv_small", "mobilenetv4_conv_small_050"


def encoder(name: str) -> list[str]:
    """Return the words that choose an encoder."""
    return ["--model.encoder.init_args.name", name]


def drawn(size: int) -> list[str]:
    """Return the words for drawn scenes of a size."""
    words = ["--config", "quickstart", "--data.size", str(size)]
    return words + [f"--data.{part}.init_args.size={size}" for part in ("train", "val")]


def lasting(steps: int) -> list[str]:
    """Return the words for a training that is evaluated at its end."""
    return [
        *("--trainer.max_epochs", "-1", "--trainer.max_steps", str(steps)),
        *("--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", str(steps)),
    ]


def step_seconds(words: list[str], variants: list[list[str]], rounds: int) -> list[float]:
    """Return the median seconds of a training step with the words of each variant; they take turns."""
    steps = []
    with tempfile.TemporaryDirectory() as folder:
        for own in variants:
            cli = build(["fit", *words, *own, "--trainer.default_root_dir", folder])
            task: OCRNetTask = cli.model.train()
            batch = next(iter(cli.datamodule.train_dataloader()))
            steps.append(functools.partial(step, task, task.make_optimizer(), batch))
        return medians(steps, rounds)


def step(task: OCRNetTask, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    """Make a step of training."""
    total, _ = task.losses(task(batch.images), batch)
    optimizer.zero_grad()
    total.backward()
    torch.nn.utils.clip_grad_norm_(task.parameters(), 10.0)
    optimizer.step()


def trained(options: argparse.Namespace) -> tuple[Results, float]:
    """Train everything; return the summaries by name, and how many times as long a step takes with the teacher."""
    words = [*drawn(options.size), *options.arguments]

    def fit(name: str, seed: int, steps: int, *more: str) -> Run:
        run = run_of(name, seed, options.folder, [*words, *lasting(steps), *more])
        run.execute()
        return run

    large = fit("teacher", options.seeds[0], options.teacher_steps or options.steps, *encoder(TEACHER))
    taught = [*encoder(STUDENT), "--model.teacher.checkpoint", str(large.folder / "checkpoints" / "last.ckpt")]
    for setting in options.teacher:
        name, value = setting.split("=")
        taught += [f"--model.teacher.{name}", value]
    place = options.folder / "ratio.json"
    if not place.exists():
        # Once: measured again it would be a little different, and finished runs would not fit.
        alone_seconds, taught_seconds = step_seconds(words, [encoder(STUDENT), taught], options.rounds)
        write_json(place, {"ratio": taught_seconds / alone_seconds})
    ratio = json.loads(place.read_text(encoding="utf-8"))["ratio"]
    length = round(options.steps * ratio)
    results: Results = {"alone": [], "taught": []}
    for seed in options.seeds:
        results["alone"].append(fit("alone", seed, length, *encoder(STUDENT)).execute())
        results["taught"].append(fit("taught", seed, options.steps, *taught).execute())
    return {"teacher": [large.execute()], **results}, ratio


def main() -> None:
    """Train all, print the table, and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the students; the first, of all")
    parser.add_argument("--steps", type=int, default=1024, help="of the student with its teacher")
    parser.add_argument("--teacher-steps", type=int, help="of the teacher; by default as many")
    parser.add_argument("--size", type=int, default=160, help="side of the scenes in pixels")
    parser.add_argument("--rounds", type=int, default=15, help="number of timed steps")
    parser.add_argument("--teacher", nargs="*", default=[], help="settings of the teacher, such as temperature=1")
    parser.add_argument("arguments", nargs="*", help="what train.py fit takes besides, after --")
    options = parser.parse_args()
    found, ratio = trained(options)
    large = found["teacher"][0]["last"]
    print(f"teacher: {', '.join(f'{title} {large[key]:.4f}' for key, title in METRICS.items() if key in large)}")
    print(f"a step with the teacher takes {ratio:.2f} times as long; the student alone makes as many more steps")
    students = {name: runs for name, runs in found.items() if name != "teacher"}
    Console(width=160).print(table_of(students, options.seeds))
    write_json(options.folder / "distillation.json", {"ratio": ratio, "seeds": options.seeds, "runs": found})


if __name__ == "__main__":
    main()
