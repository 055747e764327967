"""Presets as YAML files; the name of a file is the name users type."""
