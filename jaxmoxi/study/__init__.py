"""Many photos, many methods, many metrics: `run_study` behind `jaxmoxi study`, and the pure functions under it."""

from jaxmoxi.study.config import PRESETS, StudyConfig
from jaxmoxi.study.heads import restricted_heads
from jaxmoxi.study.measure import Setting, measure_photo, setting
from jaxmoxi.study.photos import Photo, UnreadableError, list_photos, read_photo
from jaxmoxi.study.report import has_results
from jaxmoxi.study.run import run_study

__all__ = [
    "PRESETS",
    "Photo",
    "Setting",
    "StudyConfig",
    "UnreadableError",
    "has_results",
    "list_photos",
    "measure_photo",
    "read_photo",
    "restricted_heads",
    "run_study",
    "setting",
]
