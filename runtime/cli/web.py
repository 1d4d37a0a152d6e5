"""``qrun web``: a page on this machine to try packs in.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import tell
from runtime.cli.model import BaseOptions, local_pack
from runtime.cli.options import Backend, Debug, Device, Dtype, MaxPixels, Memory
from runtime.device_names import check_names
from runtime.images.batch import check_writable
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runtime.cli.model import ModelCheck
    from runtime.loader import Loader
    from runtime.pipeline import Pipeline
    from runtime.prompts.texts import PromptTexts

WEB_EXAMPLE = "Example:  qrun web --pack model.qpack"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_PIXELS = 4_000_000
MEGABYTE = 10**6


def web(
    *,
    pack: Annotated[
        list[Path] | None, typer.Option(help="A .qpack folder, or org/name. Repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where results are kept.")] = Path(
        "qrun-web"
    ),
    host: Annotated[
        str, typer.Option(help="Who may come: 127.0.0.1 is this machine alone, 0.0.0.0 anyone.")
    ] = LOOPBACK[0],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 7860,
    max_upload: Annotated[int, typer.Option(metavar="MB", min=1, help="Refuse larger files.")] = 50,
    max_pixels: MaxPixels = MOST_PIXELS,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: Backend = "auto",
    memory: Memory = "auto",
    base: BaseOptions,
    debug: Debug = False,
    load_pipeline: "Loader",
    check_model: "ModelCheck",
) -> None:
    """Serve a page: drop a photo, choose, watch it come, compare, download.

    Pictures are done one after another. Results stay in a folder, and what was asked for before is
    answered from there.
    """
    with exit_on_error(debug=debug):
        check_names(device, dtype, backend, memory)
        if not pack:
            raise UsageError("no model: give --pack")
        check_writable(out)
        places = [local_pack(path) for path in pack]
        check_model(packs=places, full_precision=None, base=base)
        packs = dict(zip(shown_names(pack), places, strict=True))
        from runtime.web.page import check_port, gradio, make_page, serve

        gradio()
        check_port(host, port)
        from runtime.web.studio import Studio

        def load(place: Path, texts: "PromptTexts") -> "Pipeline":
            return load_pipeline(
                pack=place,
                full_precision=None,
                variant=None,
                base=base.files,
                texts=texts,
                checkpoint=None,
                device=device,
                dtype=dtype,
                backend=backend,
                memory=memory,
            )

        studio = Studio(packs, out, load, max_pixels=max_pixels)
        if host not in LOOPBACK:
            tell(f"warning: anyone who can reach {host}:{port} can use this machine's processor")
        tell(f"http://{host}:{port}  (Ctrl-C ends it; results are in {out})")
        serve(make_page(studio), studio, host=host, port=port, upload_bytes=max_upload * MEGABYTE)


def shown_names(packs: "Sequence[Path]") -> list[str]:
    """What visitors see of packs: folders' names without the way there, unless two are alike."""
    names = [path.name if path.exists() else str(path) for path in packs]
    return [
        name if names.count(name) == 1 else str(path)
        for name, path in zip(names, packs, strict=True)
    ]
