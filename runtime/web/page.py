"""The page itself, by gradio: it asks nothing of any other server, fonts included."""

import queue
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runtime.images.folder import INPUT_SUFFIXES
from runtime.images.formats import START_BYTES, describe_shown
from runtime.images.image_io import read_preview
from runtime.web.studio import Studio, Wish
from schemas.errors import QPackError, UsageError

PIP_HINT = "pip install 'qdit4sr[web]'"
SHOWN_SIDE_PX = 2048
"""Of what stands for a photo that no browser shows."""
WAITING = 20
"""Visitors in the queue; the next is told to come back."""

SHOW_PROGRESS = """() => document.querySelector("#progress").scrollIntoView({block: "nearest"})"""
"""On a phone what happens is below the button that starts it."""

SMALL_PICTURES = (
    "#finished .grid-container"
    " {grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)) !important; padding-top: 1rem}"
)
"""gradio gives a gallery as many columns as it has pictures: a single one would fill the page. Its
label would lie on the first."""


def gradio() -> Any:
    """The module ``gradio``.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import gradio as module  # noqa: PLC0415  (an extra, and seconds to import)
    except ImportError as cause:
        raise UsageError("the page needs the package gradio", hint=PIP_HINT) from cause
    return module


def make_page(studio: Studio) -> Any:
    """The page as gradio's ``Blocks``, with a queue in which one picture is done at a time."""
    gr = gradio()

    def run(
        image: str | None, pack: str, prompt: str, steps: float, fidelity: float, seed: float
    ) -> Iterator[tuple[Any, ...]]:
        if image is None:
            raise gr.Error("drop a photo first")
        wish = Wish(pack, int(steps) or None, prompt, float(fidelity), int(seed))
        for event in _events(studio, Path(image), wish):
            if isinstance(event, QPackError):
                hint = f" ({event.hint})" if event.hint else ""
                raise gr.Error(f"{event}{hint}", print_exception=False)
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Path):
                both = str(_shown(Path(image), studio.max_pixels)), str(event)
                file = gr.update(value=str(event), interactive=True)
                gallery = [str(path) for path in studio.finished()]
                yield f"done: {event.name}", gr.update(visible=False), both, file, gallery
            else:
                done, total, picture = event
                preview = gr.skip() if picture is None else gr.update(value=picture, visible=True)
                yield f"step {done} of {total}", preview, gr.skip(), gr.skip(), gr.skip()

    with gr.Blocks(title="qdit4sr", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown("# Enlarge a photo four times")
        with gr.Row():
            with gr.Column():
                image = gr.Image(type="filepath", sources=["upload", "clipboard"], label="photo")
                image.preprocess = _as_uploaded
                names = list(studio.packs)
                pack = gr.Dropdown(names, value=names[0], label="pack")
                prompt = gr.Textbox(label="prompt (empty: the pack's)", max_lines=3)
                steps = gr.Slider(0, 100, 0, step=1, label="steps (0: the pack's)")
                fidelity = gr.Slider(0, 1, 0, step=0.05, label="fidelity: inventive to faithful")
                seed = gr.Number(0, precision=0, minimum=0, label="seed")
                button = gr.Button("Enlarge", variant="primary")
            with gr.Column():
                status = gr.Textbox(label="progress", interactive=False, elem_id="progress")
                preview = gr.Image(visible=False, label="on its way", interactive=False)
                slider = gr.ImageSlider(label="before and after", type="filepath", format="png")
                download = gr.DownloadButton("Download PNG", elem_id="download", interactive=False)
        gallery = gr.Gallery(
            value=lambda: [str(path) for path in studio.finished()],
            label="finished, also before a restart",
            elem_id="finished",
            height=240,
            object_fit="contain",
        )
        button.click(None, js=SHOW_PROGRESS)
        button.click(
            run,
            [image, pack, prompt, steps, fidelity, seed],
            [status, preview, slider, download, gallery],
            concurrency_limit=1,
            concurrency_id="device",
        )
    return page.queue(max_size=WAITING)


def check_port(host: str, port: int) -> None:
    """Find out whether the page can be served there, before anything is said or loaded.

    Raises:
        UsageError: it cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers set it
            tried.bind((host, port))
    except OSError as cause:
        why = (cause.strerror or str(cause)).lower()
        raise UsageError(f"{host}:{port}: {why}", hint="choose another --port") from cause


def serve(page: Any, studio: Studio, *, host: str, port: int, upload_bytes: int) -> None:
    """Serve the page until Ctrl-C.

    Raises:
        UsageError: the port is taken.
    """
    gr = gradio()
    try:
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=upload_bytes,
            allowed_paths=[str(studio.folder.absolute())],
            theme=gr.themes.Default(font=["system-ui"], font_mono=["monospace"]),
            css=SMALL_PICTURES,
            footer_links=[],
            ssr_mode=False,
            share=False,
            quiet=True,
        )
    except OSError as cause:
        raise UsageError(f"{host}:{port}: {cause}", hint="choose another --port") from cause


def _as_uploaded(payload: Any) -> str | None:
    """The file as it came.

    gradio's own way refuses what Pillow does not read, HEIC among it, without a word, and writes
    the rest anew in 8 bits without alpha.
    """
    return None if payload is None else payload.path


def _shown(image: Path, max_pixels: int) -> Path:
    """A file that browsers show: ``image``, or a smaller JPEG beside it (of TIFF, HEIC)."""
    with image.open("rb") as file:
        if describe_shown(file.read(START_BYTES)):
            return image
    preview = image.with_name(f"{image.name}-shown.jpg")
    preview.write_bytes(read_preview(image, side_px=SHOWN_SIDE_PX, max_pixels=max_pixels))
    return preview


def _events(studio: Studio, image: Path, wish: Wish) -> Iterator[Any]:
    """What happens while a picture is enlarged: steps, then its file or an error."""
    if image.suffix.lower() not in INPUT_SUFFIXES:
        yield UsageError(f"{image.name}: not the name of an image")
        return
    events: queue.Queue[Any] = queue.Queue()

    def work() -> None:
        try:
            events.put(studio.enlarge(image, wish, lambda *step: events.put(step)))
        except Exception as error:  # raised where the page shows it
            events.put(error)

    threading.Thread(target=work, daemon=True).start()
    while True:
        event = events.get()
        yield event
        if isinstance(event, Path | Exception):
            return
