"""The two tables of docs/encoders.md: what timm models give as encoders, and what the presets cost.

For each model: millions of parameters, strides, and the input sizes that it takes. For each preset as a whole network:
millions of parameters, GFLOPs (a multiplication and an addition are two) and median milliseconds of one image of 512 x
512 in torch, encoder to raw output; with one thread they are of processor time. Weights are random. Without options,
these are the models of the page and all presets. Run: ``python benchmarks/encoders.py --models vit_tiny_patch16_224
--presets small``.
"""

from __future__ import annotations

import argparse
import functools
import re
from pathlib import Path

import torch
from deployment.timing import medians
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ocrnet_pl.cli.running import build
from ocrnet_pl.models.encoder import TimmEncoder
from ocrnet_pl.models.ocrnet import OCRNet

ROOT = Path(__file__).parents[1]
OBLONG, SQUARE = (256, 320), (320, 320)
SIZE = 512


def millions(module: nn.Module) -> float:
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def encoder_row(name: str) -> str:
    """Return a model's row: its name, size, strides, and the input sizes that it takes."""
    encoder = TimmEncoder(name, input_size=OBLONG)
    if encoder.fixed_size is None:
        sizes = "any"
    elif encoder.fixed_size == OBLONG:
        sizes = "of the run"
    else:
        encoder = TimmEncoder(name, input_size=SQUARE)
        only = encoder.fixed_size or SQUARE
        sizes = "of the run, square" if only == SQUARE else str(only[0])
    return f"| `{name}` | {millions(encoder):.1f} | {', '.join(map(str, encoder.strides))} | {sizes} |"


def preset(name: str, size: int = SIZE, *options: str) -> OCRNet:
    """Return the network of a preset over the quickstart's data, with random weights, for images of a size.

    Args:
        name: Name of the preset.
        size: Side of the images in pixels.
        options: Further words of the command line.
    """
    configs = ["--config", "quickstart", "--config", f"presets/{name}"]
    data = ["--data.train.init_args.length=2", "--data.val.init_args.length=2", f"--data.size={size}"]
    network = build(["fit", *configs, *data, "--model.encoder.init_args.weights=null", *options]).model.network
    assert isinstance(network, OCRNet)
    return network.eval()


@torch.no_grad()
def preset_row(name: str, rounds: int, threads: int) -> str:
    """Return a preset's row: encoder, parameters of the encoder and of all, GFLOPs and milliseconds."""
    network = preset(name)
    image = torch.zeros(1, 3, SIZE, SIZE)
    with FlopCounterMode(display=False) as counter:
        network(image)
    seconds = medians({name: functools.partial(network, image)}, rounds, threads)[name]
    encoder = network.encoder
    return (
        f"| `{name}` | `{encoder.name}` | {millions(encoder):.1f} | {millions(network) - millions(encoder):.2f} | "
        f"{counter.get_total_flops() / 1e9:.1f} | {seconds * 1e3:.0f} |"
    )


def main() -> None:
    """Print both tables."""
    page = (ROOT / "docs" / "encoders.md").read_text()
    models = re.findall(r"^\| `(\w+)` \| [\d.]+ \| [\d, ]+ \| [^|]+ \|$", page, re.MULTILINE)
    presets = sorted(path.stem for path in (ROOT / "configs" / "presets").glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=models, help="timm models; by default those of the page")
    parser.add_argument("--presets", nargs="*", default=presets, help="names of configs in configs/presets")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| Model | Parameters, M | Strides | Input size |\n| --- | ---: | --- | --- |")
    for name in options.models:
        print(encoder_row(name), flush=True)
    print("\n| Preset | Encoder | Its parameters, M | Other parameters, M | GFLOPs | ms |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for name in options.presets:
        print(preset_row(name, options.rounds, options.threads), flush=True)


if __name__ == "__main__":
    main()
