"""Active health checks: asks each instance of a service, again and again, whether it is well.

They are made once for an instance of the gateway, by its supervisor, which tells the workers. Each check has a
connection of its own, as a new call would. An instance that has come is not asked by clients before it has passed.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import msgspec

from castlegate.body import Body
from castlegate.config.addresses import Origin, parse_origin
from castlegate.config.files import signature
from castlegate.config.report import Place
from castlegate.config.units import Count, Seconds, write_seconds
from castlegate.errors import CallFailed
from castlegate.headers import Headers
from castlegate.message import Call, Request
from castlegate.rules.standing import Standing
from castlegate.telemetry.stumbles import Stumbles
from castlegate.telemetry.trace import Ids
