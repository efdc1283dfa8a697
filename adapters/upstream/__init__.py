"""Registries and their token servers, by HTTP."""
