"""Conversions between a `Volume` and the types of other libraries.

This is the only place in the core where another space than LPS appears: RAS for nibabel and MONAI, x-y-z order for
SimpleITK. Each library is imported when it is asked for.
"""
