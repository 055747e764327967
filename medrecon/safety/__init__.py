"""Limits, atomic files, decoding behind a gate and in a child, and keeping patient text out of everything."""
