"""The base of every model here: no coercion, no unknown key, no change after validation."""

from pydantic import BaseModel, ConfigDict


class StrictModel(BaseModel):
    """A frozen model that takes ``4`` for an integer and refuses ``"4"``, ``4.0`` and ``NaN``."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )
