"""Load a pack, upscale images: two nodes over `qdit4sr.load`.

ComfyUI knows a node by ``INPUT_TYPES``, ``RETURN_TYPES``, ``FUNCTION`` and ``CATEGORY``, and hands
images over as float tensors [B, H, W, 3] of 0 ... 1.
"""

from pathlib import Path
from typing import Any, ClassVar

import comfy.utils
import folder_paths
from torch import Tensor

import qdit4sr

FOLDER = "qpacks"
"""Packs are looked for in ``models/qpacks``, and wherever ``extra_model_paths.yaml`` says so."""
PACK = "QPACK"
LARGEST_SEED = 2**63 - 1

folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


def packs() -> dict[str, Path]:
    """Name -> place of every pack below ComfyUI's folders of packs; the first of a name counts."""
    found: dict[str, Path] = {}
    for folder in map(Path, folder_paths.get_folder_paths(FOLDER)):
        for manifest in sorted(folder.glob("*/manifest.json")):
            found.setdefault(manifest.parent.name, manifest.parent)
    return found


class LoadPack:
    """A pack from a folder, or by its name on the hub."""

    CATEGORY = "loaders/qdit4sr"
    DESCRIPTION = "Loads a quantized DiT4SR pack."
    FUNCTION = "load"
    RETURN_TYPES = (PACK,)
    RETURN_NAMES = ("pack",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  (ComfyUI's name)
        """What the node shows."""
        return {
            "required": {
                "pack": ([*packs()],),
                "device": (["auto", "cpu", "cuda"],),
            },
            "optional": {
                "hub_name": ("STRING", {"default": "", "tooltip": "org/name[@revision], instead"}),
                "base": ("STRING", {"default": "", "tooltip": "Stable Diffusion 3.5, for prompts"}),
            },
        }

    def load(self, pack: str, device: str, hub_name: str = "", base: str = "") -> tuple[Any]:
        """Load it; ComfyUI keeps the result until an input changes."""
        place = hub_name.strip() or packs()[pack]
        return (qdit4sr.load(place, device=device, base=base.strip() or None),)


class UpscaleWithPack:
    """Images to images, enlarged."""

    CATEGORY = "image/upscaling"
    DESCRIPTION = "Enlarges photos with a quantized DiT4SR pack."
    FUNCTION = "upscale"
    RETURN_TYPES = ("IMAGE",)

    SCALES: ClassVar[list[str]] = ["4", "2", "1"]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        """What the node shows; 0 leaves steps and guidance to the pack."""
        return {
            "required": {
                "pack": (PACK,),
                "image": ("IMAGE",),
                "seed": ("INT", {"default": 0, "min": 0, "max": LARGEST_SEED}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 1000}),
                "guidance": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 100.0, "step": 0.1}),
                "fidelity": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.05}),
                "scale": (cls.SCALES,),
            },
            "optional": {
                "prompt": ("STRING", {"default": "", "multiline": True}),
                "negative_prompt": ("STRING", {"default": "", "multiline": True}),
            },
        }

    def upscale(
        self,
        pack: Any,
        image: Tensor,
        seed: int,
        steps: int,
        guidance: float,
        fidelity: float,
        scale: str,
        prompt: str = "",
        negative_prompt: str = "",
    ) -> tuple[Tensor]:
        """Enlarge a batch, image by image; ComfyUI's progress bar may interrupt it at any step."""
        bar = comfy.utils.ProgressBar((steps or pack.model.sampling.steps) * len(image))

        def on_step(*_step: Any) -> dict[str, Any]:
            bar.update(1)
            return {}

        result = pack(
            image.permute(0, 3, 1, 2),
            prompt.strip() or None,
            negative_prompt.strip() or None,
            seed=seed,
            num_inference_steps=steps or None,
            guidance_scale=guidance or None,
            fidelity=fidelity,
            scale=int(scale),
            output_type="pt",
            callback_on_step_end=on_step,
        )
        return (result.images.permute(0, 2, 3, 1),)


NODE_CLASS_MAPPINGS = {"QDiT4SRLoadPack": LoadPack, "QDiT4SRUpscale": UpscaleWithPack}
NODE_DISPLAY_NAME_MAPPINGS = {
    "QDiT4SRLoadPack": "Load QPack (DiT4SR)",
    "QDiT4SRUpscale": "Upscale with QPack (DiT4SR)",
}
