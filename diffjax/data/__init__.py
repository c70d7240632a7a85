"""Data distributions with a tractable posterior, one file each; `base` states the protocols."""
