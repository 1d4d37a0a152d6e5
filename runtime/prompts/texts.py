"""What guidance steers towards, and away from, in words. Nothing heavy is imported here."""

from dataclasses import dataclass

from schemas.errors import UsageError

ENCODER_HINT = "give --base with a Stable Diffusion 3.5 folder that holds its text encoders"

DEFAULT_POSITIVE = (
    "A crisp, faithful photograph with natural colours, fine texture in every surface, clean"
    " edges and true-to-life detail, taken with a good lens and well exposed."
)
DEFAULT_NEGATIVE = (
    "blurry, out of focus, noisy, jpeg blocks, ringing around edges, smeared texture, plastic"
    " skin, oversharpened, washed-out colours, low resolution"
)


@dataclass(frozen=True)
class PromptTexts:
    """Prompts that replace a model's own; a side that is None stays as it is.

    Attributes:
        positive: what guidance steers towards.
        negative: what it steers away from.
        captions: further positive prompts, of single images, to be encoded along with these.
    """

    positive: str | None = None
    negative: str | None = None
    captions: frozenset[str] = frozenset()

    @property
    def all(self) -> list[str]:
        """Every text, each once, in an order of its own."""
        sides = {text for text in (self.positive, self.negative) if text is not None}
        return sorted(self.captions | sides)


def no_encoders() -> UsageError:
    """The error of a prompt that nothing can encode."""
    return UsageError(
        "a prompt was given, but there are no text encoders to encode it", hint=ENCODER_HINT
    )
