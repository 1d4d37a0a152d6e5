"""How commands end: exit codes, and what they say."""

import pytest

from artifacts.cli.exit_codes import exit_on_error
from schemas.error_text import describe_error
from schemas.errors import UsageError


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("what"), 2, "error: what"),
        (MemoryError("3 GiB"), 5, "error: out of memory (3 GiB)"),
        (OSError(28, "No space left on device"), 5, "error: [Errno 28] No space left on device"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("1 of 2 finished"), 130, "interrupted: 1 of 2 finished"),
        (ValueError("a\n  b"), 1, "error: ValueError: a b (--debug shows the traceback)"),
    ],
)
def test_every_error_has_its_code_and_one_line(error, code, line, capsys):
    assert describe_error(error) == (code, [line])
    with pytest.raises(SystemExit) as caught, exit_on_error():
        raise error
    assert caught.value.code == code
    assert capsys.readouterr().err == line + "\n"


def test_torch_out_of_memory_is_a_resource_error():
    import torch

    assert describe_error(torch.OutOfMemoryError("CUDA out of memory"))[0] == 5
