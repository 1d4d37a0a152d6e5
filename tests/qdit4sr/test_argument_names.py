"""Errors that name arguments in place of the commands' options."""

import pytest

from qdit4sr.argument_names import in_python_terms
from schemas.errors import ImageError, UsageError


def test_options_become_arguments_and_names_of_files_stay():
    with pytest.raises(UsageError) as caught, in_python_terms(steps="num_inference_steps"):
        raise UsageError("--steps 3: too few (--color-fix)", hint="leave `--steps` out")
    assert str(caught.value) == "num_inference_steps 3: too few (color_fix)"
    assert caught.value.hint == "leave `num_inference_steps` out"

    with pytest.raises(ImageError, match=r"^a--b/c--d\.png: damaged$"), in_python_terms():
        raise ImageError("a--b/c--d.png: damaged")
