"""The route table that every HTTP subject gets, and the paths that the load asks for.

Two hundred routes: 25 collections of 8, as a company's API has them: exact paths, placeholders, one rest of a path.
"""

from dataclasses import dataclass

COLLECTIONS = [
    "accounts", "addresses", "baskets", "brands", "campaigns", "categories", "coupons", "currencies", "customers",
    "deliveries", "devices", "invoices", "labels", "locations", "messages", "orders", "payments", "products", "refunds",
    "reviews", "sessions", "shipments", "suppliers", "tickets", "warehouses",
]  # fmt: skip
_SHAPES = [
    ("GET", "/api/v1/{c}/{{id}}"),
    ("GET", "/api/v1/{c}"),
    ("POST", "/api/v1/{c}"),
    ("PUT", "/api/v1/{c}/{{id}}"),
    ("DELETE", "/api/v1/{c}/{{id}}"),
    ("GET", "/api/v1/{c}/{{id}}/items"),
    ("GET", "/api/v1/{c}/{{id}}/items/{{item}}"),
    ("ANY", "/files/{c}/{{path...}}"),
]


@dataclass(frozen=True, slots=True)
class Route:
    """`ANY /files/orders/{path...}`, taken apart."""

    collection: str
    method: str
    path: str

    @property
    def is_prefix(self) -> bool:
        """Whether it ends in a placeholder for the rest of the path."""
        return self.path.endswith("...}")

    @property
    def has_placeholder(self) -> bool:
        """Whether any segment is free."""
        return "{" in self.path


ROUTES = [Route(name, method, path.format(c=name)) for name in COLLECTIONS for method, path in _SHAPES]

LOAD_PATHS = [
    path.format(c=name, n=1000 + number)
    for number, name in enumerate(COLLECTIONS)
    for path in (
        "/api/v1/{c}/{n}",
        "/api/v1/{c}?page=2&size=20",
        "/api/v1/{c}/{n}/items/7",
        "/files/{c}/2026/11/{n}.json",
    )
]
