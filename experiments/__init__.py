"""Experiments: each runs the simulation, solves the theory, lays one over the other.

``python -m experiments`` lists them; ``python -m experiments NAME`` runs one. Every module holds a
frozen ``Config``, ``PRESETS``, ``simulate(config, session)``, ``predict(config, measured)`` and
``report(config, measured, theory)``.
"""
