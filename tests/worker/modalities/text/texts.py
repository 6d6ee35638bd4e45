"""Made-up texts for the tests of their modality."""

import torch
from torch import Tensor

from service.content.contract import Limits
from worker.modalities.text import Text

LIMITS = Limits(max_pixels=1, max_text_bytes=1_000_000)
TEXT = Text(tokens=24)


def texts(n: int, seed: int = 0) -> list[str]:
    """Strings of 5 to 20 words, some of them frequent."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(5, 21, (n,), generator=generator).tolist()
    return [
        " ".join(f"w{int(number)}" for number in 2_000 * torch.rand(count, generator=generator) ** 2)
        for count in counts
    ]


def decoded(strings: list[str], modality: Text = TEXT) -> Tensor:
    return torch.stack([modality.decode(one.encode(), LIMITS)[0] for one in strings])


def seeded(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
