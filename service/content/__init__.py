"""Contents of the modalities and sources of item bytes, without torch: both programs import it."""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

from service.content.contract import Content, Limits
from service.settings import Settings


@cache
def contents() -> Mapping[str, Content]:
    """By modality; images first, whose projects were there before modalities had names."""
    modules = (
        importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)
    )
    found: list[Content] = [module.CONTENT for module in modules if hasattr(module, "CONTENT")]
    found.sort(key=lambda content: (content.name != "image", content.name))
    return MappingProxyType({content.name: content for content in found})


def limits_of(settings: Settings) -> Limits:
    return Limits(
        max_pixels=settings.max_image_pixels,
        max_text_bytes=settings.max_text_bytes,
        max_graph_bytes=settings.max_graph_bytes,
        max_video_pixels=settings.max_video_pixels,
    )
