"""What looks for instances, made of what operators say about it."""

from __future__ import annotations

from pathlib import Path

from castlegate.upstreams.http.discovery import Source
from castlegate.upstreams.http.listed import Listing
from castlegate.upstreams.http.sources import Dns, InstanceFile, Sources


def source_of(settings: Sources, folder: Path) -> Source:
    """`folder`: what files are relative to."""
    if isinstance(settings, InstanceFile):
        return Listing(settings, folder)
    from castlegate.upstreams.http.names import Addresses, Targets  # slow to load, and not everybody asks DNS

    return Addresses(settings) if isinstance(settings, Dns) else Targets(settings)
