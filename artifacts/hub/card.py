"""A pack's model card as the hub wants it: with licence and base model in its front matter."""

from pathlib import Path
from typing import Any

from artifacts.hub.client import hub_client
from artifacts.pack.file_names import README
from artifacts.pack.place import check_is_pack
from schemas.errors import PackError, UsageError


def hub_card(pack: Path, *, license_name: str | None, base_model: str | None) -> str:
    """The pack's README, its front matter completed.

    Args:
        pack: the pack's folder.
        license_name: the hub's identifier of a licence; None for what the card says.
        base_model: repository of the unquantized weights; None for what the card says.

    Raises:
        PackError: there is no card, or its front matter is no YAML.
        UsageError: neither the card nor the arguments name licence and base model.
    """
    check_is_pack(pack)
    repocard = hub_client("repocard")
    try:
        text = (pack / README).read_text(encoding="utf-8")
        front: dict[str, Any] | None = repocard.metadata_load(pack / README)
    except OSError as cause:
        raise PackError(f"{pack / README}: {cause.strerror or cause}") from cause
    except Exception as cause:  # the YAML library is the client's own choice
        raise PackError(f"{pack / README}: its front matter is no YAML") from cause
    data = {} if front is None else front
    given = {"license": license_name, "base_model": base_model}
    data |= {key: value for key, value in given.items() if value is not None}
    if license_name is not None:  # names and links of another licence
        for key in ("license_name", "license_link"):
            data.pop(key, None)
    if base_model is not None:
        data["base_model_relation"] = "quantized"
    for key, option in (("license", "--license"), ("base_model", "--base-model")):
        if not data.get(key):
            raise UsageError(
                f"{pack / README}: the model card names no {key}",
                hint=f"give {option}: the hub asks for it",
            )
    body = text if front is None else text.split("\n---\n", 1)[-1]
    return f"---\n{repocard.yaml_dump(data, sort_keys=False)}---\n{body}"
