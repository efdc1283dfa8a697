"""The version, as pyproject.toml and CHANGELOG.md have it (a test compares them)."""

NAME = "docker-image-proxy"
VERSION = "0.2.0"
