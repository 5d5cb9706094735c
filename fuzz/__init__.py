"""Fuzz targets: `python -m fuzz TARGET`, or `scripts/fuzz` for all of them."""
