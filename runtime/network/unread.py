"""What stands in a network for a layer that it has and never reads."""

from torch import Tensor, nn

from schemas.errors import PackError


class Unread(nn.Module):
    """Stands where a pack left out a layer that no forward pass reads; running it is an error."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, *_: Tensor) -> Tensor:
        """Refuse to run."""
        raise PackError(f"layer {self.name} is not in the pack, but the network reads it")
