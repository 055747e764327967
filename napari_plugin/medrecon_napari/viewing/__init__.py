"""Looking: orientation letters, position and value, windows, linked planes, slabs, overlays and comparisons."""
