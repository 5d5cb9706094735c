"""What functions in Python are written with: `call: python:module:function`, and policies that say `python`.

from castlegate.python import Context, Service

async def page(user: int, ctx: Context, orders: Annotated[Service, "orders.list"]) -> Page: ...
"""

from castlegate.errors import CallFailed
from castlegate.principal import Principal
from castlegate.python.answers import Answer, Problem, Response, ServiceFailed
from castlegate.python.context import Context, Service
from castlegate.python.hints import Header

__all__ = ["Answer", "CallFailed", "Context", "Header", "Principal", "Problem", "Response", "Service", "ServiceFailed"]
