"""The page of ``demo``: an image is dropped, and one or two networks draw what they find."""

from __future__ import annotations

import os
from typing import Any

# Before Gradio is imported, which reads them: nothing is sent anywhere.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio

from ocrnet_pl.errors import DataError
from ocrnet_pl.serving.served import Loaded
from ocrnet_pl.serving.trying import MAX_BYTES, drawn, predict_file, table

_HEADERS = ["class", "score", "left", "top", "right", "bottom"]
_VIEWS = ["fused", "boxes", "pixels"]


def make_page(networks: dict[str, Loaded], max_pixels: int) -> gradio.Blocks:
    """Return the page, which is not shown yet.

    Args:
        networks: The networks by what they are called, one or two.
        max_pixels: Number of pixels above which images are refused.
    """
    first = next(iter(networks.values()))

    def predict(path: str | None) -> list[Any] | None:
        if path is None:
            return None
        try:
            return [predict_file(loaded, path, max_pixels) for loaded in networks.values()]
        except DataError as error:
            raise gradio.Error(str(error), duration=None, print_exception=False) from error

    def show(predictions: list[Any] | None, view: Any, score: float) -> list[Any]:
        if predictions is None:
            return [None] * (2 * len(networks))
        return [part for each in predictions for part in (drawn(each, view, score), table(each, score))]

    page = gradio.Blocks(title="OCRNet-PL", analytics_enabled=False)
    with page:
        found = gradio.State()
        file = gradio.File(label="Image", type="filepath")
        with gradio.Row():
            view = gradio.Radio(_VIEWS, value=_VIEWS[0], label="Shown")
            score = gradio.Slider(0, 1, value=first.default_score, step=0.01, label="Smallest score")
        outputs: list[Any] = []
        with gradio.Row():
            for name in networks:
                with gradio.Column():
                    # Of Gradio's own buttons, that for sharing would send the picture elsewhere.
                    buttons: list[Any] = ["download", "fullscreen"]
                    outputs.append(
                        gradio.Image(label=name, type="pil", format="png", interactive=False, buttons=buttons)
                    )
                    outputs.append(gradio.Dataframe(headers=_HEADERS, label="Objects", interactive=False))
        # Another score or view draws again, and does not predict again.
        file.change(predict, file, found).success(show, [found, view, score], outputs)
        view.change(show, [found, view, score], outputs)
        score.release(show, [found, view, score], outputs)
    return page


def show_page(page: gradio.Blocks, port: int) -> None:
    """Show the page to this machine until the process is interrupted.

    Args:
        page: The page.
        port: Port to listen on.
    """
    page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=False,
        quiet=True,
        ssr_mode=False,
        max_file_size=MAX_BYTES,
        footer_links=[],
        # The fonts of the usual theme come from elsewhere.
        theme=gradio.themes.Default(font=["sans-serif"], font_mono=["monospace"]),
    )
