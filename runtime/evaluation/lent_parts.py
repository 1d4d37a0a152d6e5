"""Which autoencoder and prompts a network runs with: what else decides its pictures."""

from collections.abc import Sequence
from pathlib import Path

from artifacts.files.hashing import sha256_of
from artifacts.pack.file_names import PROMPTS
from artifacts.pack.reader import Pack
from runtime.prompts.embedding_cache import encoders_identity
from runtime.prompts.encoders import has_text_encoders
from runtime.prompts.texts import DEFAULT_NEGATIVE, DEFAULT_POSITIVE
from schemas.errors import UsageError


def lent_parts(pack: Pack | None, folders: Sequence[Path | None], what: str) -> dict[str, str]:
    """Say which VAE and prompts a network runs with, by hash, in the loader's order of search.

    Raises:
        UsageError: a part is nowhere.
    """
    known = [folder for folder in folders if folder is not None]
    parts = {"vae": _vae(pack, known), "prompts": _prompts(pack, known)}
    for part, said in (("vae", "a VAE"), ("prompts", "prompt embeddings")):
        if parts[part] is None:
            raise UsageError(
                f"{what}: {said} is needed as well",
                hint="give --base with a Stable Diffusion 3.5 folder, or a pack that has it",
            )
    return {part: found for part, found in parts.items() if found is not None}


def _vae(pack: Pack | None, folders: Sequence[Path]) -> str | None:
    if pack is not None and pack.vae_dir is not None:
        return f"pack {pack.manifest.checksum}"
    places = [folder / "vae" for folder in folders]
    found = next((place for place in places if (place / "config.json").is_file()), None)
    if found is None:
        return None
    # Both files decide: the configuration holds the latent's scale.
    files = (found / "config.json", found / "diffusion_pytorch_model.safetensors")
    return " ".join(sha256_of(file) for file in files if file.is_file())


def _prompts(pack: Pack | None, folders: Sequence[Path]) -> str | None:
    if pack is not None and pack.prompt_header is not None:
        return f"pack {pack.manifest.checksum}"
    file = next((f / PROMPTS for f in folders if (f / PROMPTS).is_file()), None)
    if file is not None:
        return sha256_of(file)
    folder = next((folder for folder in folders if has_text_encoders(folder)), None)
    if folder is None:
        return None
    return f"{encoders_identity(folder)} {DEFAULT_POSITIVE} {DEFAULT_NEGATIVE}"
