"""``qplan push``: a pack onto the Hugging Face Hub.

Heavy imports stand inside the function, so that ``--help`` is answered at once.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from artifacts.cli.exit_codes import exit_on_error
from artifacts.cli.output import print_json, say
from planner.cli.options import Debug, Json
from schemas.errors import UsageError

PUSH_EXAMPLE = "Example:  qplan push model.qpack org/name --private"


def push(
    pack: Annotated[Path, typer.Argument(metavar="PACK", help="A .qpack folder.")],
    name: Annotated[str, typer.Argument(metavar="ORG/NAME", help="A repository on the hub.")],
    *,
    revision: Annotated[
        str | None,
        typer.Option(metavar="BRANCH", help="Made where it is missing (default: the hub's)."),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="If the repository has to be created.")
    ] = False,
    license_name: Annotated[
        str | None,
        typer.Option("--license", metavar="ID", help="The hub's word for the weights' licence."),
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(metavar="ORG/NAME", help="Repository of the unquantized weights."),
    ] = None,
    token_from_env: Annotated[
        str | None,
        typer.Option(
            metavar="VARIABLE", help="Environment variable with the token (default: your login's)."
        ),
    ] = None,
    message: Annotated[str | None, typer.Option("-m", "--message", help="Of the commit.")] = None,
    json_output: Json = False,
    debug: Debug = False,
) -> None:
    """Verify a pack and upload it to the Hugging Face Hub in one commit.

    Anyone whom the repository is shown to can run it: qrun upscale photo.jpg --pack org/name.
    """
    with exit_on_error(debug=debug):
        from artifacts.hub.card import hub_card
        from artifacts.hub.names import HubName, check_repository
        from artifacts.hub.push import push_pack
        from artifacts.pack.reader import verify_pack

        for repository in (name, base_model):
            if repository is not None:
                check_repository(repository)
        token = None if token_from_env is None else os.environ.get(token_from_env)
        if token_from_env is not None and not token:
            raise UsageError(f"--token-from-env: {token_from_env} is not set")
        card = hub_card(pack, license_name=license_name, base_model=base_model)
        pushed = push_pack(
            verify_pack(pack),
            HubName(name, revision),
            card,
            private=private,
            token=token,
            message=message,
        )
        if json_output:
            facts = {"url": pushed.url, "files": pushed.files, "bytes": pushed.bytes}
            print_json({"pack": str(pack), "name": name, "commit": pushed.commit, **facts})
        else:
            say(f"{pushed.url}: {pushed.files} files, {pushed.bytes:,} bytes")
            say(f"run it: qrun upscale photo.jpg --pack {name}@{pushed.commit[:12]}")
