"""Trajectories: exact forward noising, backward samplers, clones and U-turns."""
