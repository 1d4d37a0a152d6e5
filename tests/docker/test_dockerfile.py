"""The Dockerfile, as far as it can be looked at without docker: its words, names and files.

hadolint looks closer where it is installed. Whether it builds is not tested here.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KNOWN = {"FROM", "ARG", "RUN", "ENV", "COPY", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}


@pytest.fixture(scope="module")
def instructions():
    """Instruction and rest of every logical line."""
    text = (ROOT / "Dockerfile").read_text()
    lines = re.sub(r"\\\n", " ", text).splitlines()
    kept = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in kept)]


def rests(instructions, word):
    return [rest for found, rest in instructions if found == word]


def test_instructions_are_known_and_begin_with_an_image(instructions):
    assert {word for word, _ in instructions} <= KNOWN
    assert instructions[0][0] == "FROM"


def test_stages_and_sources_exist(instructions):
    stages = {rest.split(" AS ")[1] for rest in rests(instructions, "FROM") if " AS " in rest}
    for rest in rests(instructions, "COPY"):
        stage = re.match(r"--from=(\S+)", rest)
        if stage:
            assert stage[1] in stages
        else:
            assert (ROOT / rest.split()[0]).exists()


def test_variables_are_declared_and_extras_exist(instructions):
    declared = {rest.split("=")[0] for word in ("ARG", "ENV") for rest in rests(instructions, word)}
    used = {name for _, rest in instructions for name in re.findall(r"\$(\w+)", rest)}
    assert used - {"PATH"} <= declared
    extras = dict(rest.split("=", 1) for rest in rests(instructions, "ARG"))["EXTRAS"].split(",")
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


def test_it_runs_qrun_and_not_as_root(instructions):
    # A number: Kubernetes' `runAsNonRoot` cannot look a name up.
    assert int(rests(instructions, "USER")[-1]) > 0
    assert json.loads(rests(instructions, "ENTRYPOINT")[-1]) == ["qrun"]
    assert json.loads(rests(instructions, "CMD")[-1]) == ["--help"]


def test_hadolint():
    if shutil.which("hadolint") is None:
        pytest.skip("needs hadolint")
    ignored = ["--ignore", "DL3008"]  # the distribution's compiler needs no version
    subprocess.run(["hadolint", *ignored, str(ROOT / "Dockerfile")], check=True)
