"""From detector counts to line integrals: one file for each correction.

The usual order is flat and dark field, bad pixels, scatter, logarithm, beam hardening, rings; `line_integrals` does what
every scan needs. All functions take and return new values, know nothing of files, and load their libraries when called.
"""
