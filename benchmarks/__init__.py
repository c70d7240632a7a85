"""Timings as ratios: against the measured floor of the machine, and against what a user would pick.

``python -m benchmarks [NAME ...] [--peers] [--rounds R] [--out DIR]``
"""
