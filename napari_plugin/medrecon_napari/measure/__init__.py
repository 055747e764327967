"""Measuring in patient millimetres: distance, angle, regions, surfaces, and a table of what was measured."""
