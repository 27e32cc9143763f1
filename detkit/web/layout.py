"""Where the components of the page stand, and which handler each calls."""

from collections.abc import Callable
from importlib import resources
from typing import Any

import gradio as gr

from detkit.web import words
from detkit.web.handlers import Handlers
from detkit.web.reading import MAX_BYTES, MAX_PICTURES, MAX_PIXELS
from detkit.web.session import Session

Components = list[gr.components.Component]
Source = tuple[Callable[..., Any], Callable[..., Any], Components, Components]

HOUR = 3600
LIMITS = f"up to {MAX_BYTES // 2**20} MiB and {MAX_PIXELS // 10**6} megapixels each, {MAX_PICTURES} at once"
FONT = ("system-ui", "sans-serif")  # those of the machine: none is fetched
ONE_AT_A_TIME: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
AT_ONCE: dict[str, Any] = {"trigger_mode": "always_last", "show_progress": "hidden", "api_visibility": "private"}


def build_page(handlers: Handlers, name: str, score: float) -> gr.Blocks:
    """The page of a detector from the checkpoint called `name`, `score` its first threshold."""
    with gr.Blocks(title=f"detkit: {name}", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        gr.HTML(words.title(handlers.detector, name), padding=False)
        session, number = gr.State(None, time_to_live=24 * HOUR, delete_callback=_close), gr.State(0)
        with gr.Row():
            with gr.Column(scale=4, min_width=280):
                sources = _sources(handlers)
                threshold, classes = _filters(handlers, score)
            with gr.Column(scale=7, min_width=280):
                refused, thumbnails, view = _results()
        with gr.Accordion("Model card", open=True):
            gr.HTML(words.card(handlers.detector, name), padding=False)
        choice = [threshold, classes]
        everything = [session, number, refused, thumbnails, *view]
        for happens, handler, read, emptied in sources:
            happens(handler, [*read, session, *choice], [*everything, *emptied], **ONE_AT_A_TIME)
        gr.on([threshold.change, classes.change], handlers.show, [session, number, *choice], view, **AT_ONCE)
        thumbnails.select(handlers.turn_to, [session, *choice], [number, *view], **AT_ONCE)
    page.queue(api_open=False)  # nothing runs but through the queue, one at a time
    return page


def appearance() -> dict[str, Any]:
    """What gradio takes where it serves a page: its theme and styles."""
    theme = gr.themes.Default(
        primary_hue="blue", neutral_hue="stone", font=FONT, font_mono=("ui-monospace", "monospace")
    )
    return {"theme": theme, "css": resources.files("detkit.web").joinpath("page.css").read_text(encoding="utf-8")}


def _sources(handlers: Handlers) -> list[Source]:
    """Where pictures come from: the event, its handler, what the handler gets first, and what it empties."""
    with gr.Tabs():
        with gr.Tab("Pictures"):
            files = gr.File(label="pictures", file_count="multiple", height=170, elem_id="files")
        with gr.Tab("Folder"):
            folder = gr.File(label="a folder", file_count="directory", height=170, elem_id="folder")
        with gr.Tab("Camera"):
            camera = gr.Image(
                label="take a picture", sources=["webcam"], type="filepath", image_mode=None, height=280,
                webcam_options=gr.WebcamOptions(mirror=False), elem_id="camera",
            )  # fmt: skip
    gr.HTML(f'<p class="small">JPEG, PNG, WebP, BMP, TIFF; {LIMITS}.</p>', padding=False)
    found: list[Source] = [
        (files.upload, handlers.from_files, [files], [files]),
        (folder.upload, handlers.from_files, [folder], [folder]),
        (camera.input, handlers.from_camera, [camera], []),
    ]
    if handlers.examples:
        gr.HTML('<p class="small">Or take one of the validation split:</p>', padding=False)
        examples = gr.Gallery(
            [example.thumbnail for example in handlers.examples], show_label=False, columns=len(handlers.examples),
            allow_preview=False, interactive=False, buttons=[],
            elem_id="examples", elem_classes="thumbnails",
        )  # fmt: skip
        found.append((examples.select, handlers.from_example, [], []))
    return found


def _filters(handlers: Handlers, score: float) -> tuple[gr.Slider, gr.Dropdown]:
    lowest = handlers.detector.config.model.score_threshold
    threshold = gr.Slider(
        lowest, 1, max(score, lowest), step=0.01, label="score threshold", buttons=[],
        info="The model does not run again: boxes below it are left out.", elem_id="threshold",
    )  # fmt: skip
    # Its number box may be emptied or hold any number, at which gradio would fail: what is beyond the ends is the end.
    # Not a subclass, for each of which gradio writes a file beside the module.
    threshold.preprocess = lambda typed: min(max(typed or 0.0, lowest), 1.0)
    classes = gr.Dropdown(
        list(handlers.labels), value=[], multiselect=True, label="classes", info="All where none is chosen.",
        elem_id="classes",
    )  # fmt: skip
    return threshold, classes


def _results() -> tuple[gr.HTML, gr.Gallery, Components]:
    refused = gr.HTML(elem_id="refused", padding=False)
    drawn = gr.Image(
        label="found", type="filepath", interactive=False, buttons=["fullscreen"], elem_id="drawn",
    )  # fmt: skip
    with gr.Row():
        buttons = [
            gr.DownloadButton(label, visible=False, size="sm", min_width=120, elem_id=identity)
            for label, identity in (
                ("Picture with boxes", "get-picture"),
                ("predictions.json", "get-predictions"),
                ("images.json", "get-images"),
            )
        ]
    thumbnails = gr.Gallery(
        show_label=False, columns=6, visible=False, allow_preview=False, interactive=False, buttons=[],
        elem_id="thumbnails", elem_classes="thumbnails",
    )  # fmt: skip
    found = gr.HTML(elem_id="found", padding=False)
    return refused, thumbnails, [drawn, found, *buttons]


def _close(session: Session | None) -> None:
    if session is not None:
        session.close()
