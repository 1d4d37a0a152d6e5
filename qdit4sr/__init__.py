"""Enlarge photos with a quantized DiT4SR, and make the packs that do it.

    import qdit4sr

    model = qdit4sr.load("model.qpack")
    image = model(Image.open("photo.png"), num_inference_steps=20).images[0]      # as in diffusers
    qdit4sr.upscale(model, "photo.png", "photo_x4.png")
    pixels = qdit4sr.upscale(model, array)                       # uint8 [H, W, 3] -> [4 H, 4 W, 3]
    qdit4sr.build("dit4sr.safetensors", "model.qpack", target="W4A4")

What stands behind it is importable too: `runtime` runs packs, `planner` makes them, `artifacts`
reads and writes them. Nothing heavy is imported before one of the functions is called.
"""

from importlib.metadata import version

from qdit4sr.api import build, load, upscale

__version__ = version("qdit4sr")

__all__ = ["__version__", "build", "load", "upscale"]
