"""The settings: their definitions, where they come from, and what follows from them."""

from entrypoints.settings.model import Settings, SettingsError, UpstreamSettings
from entrypoints.settings.sources import load_settings

__all__ = ["Settings", "SettingsError", "UpstreamSettings", "load_settings"]
