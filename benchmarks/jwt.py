"""What a token costs: RS256, 2,000 distinct ones in turn, castlegate beside Envoy's jwt_authn, one core each.

Told is what each adds to its own plain route, which gets the same requests: with caches off on both sides, and on.

python -m benchmarks.jwt [--rounds N] [--seconds N] [--json FILE] [--subjects ...]
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.api import LOAD_PATHS, ROUTES
from benchmarks.measure import CannotMeasure, Load, Sample, measure_all, parse_options, tell_failures
from benchmarks.peers.castlegate import castlegate
from benchmarks.peers.envoy import envoy
from benchmarks.services.origin import origin
from tests.testbeds.tokens import AUDIENCE, ISSUER, Signer, jwks

TOKENS = 2000
CACHED = 5000  # tokens that are remembered, where they are
_WARM_UP_S = 3
_VARIANTS = {"caches off": 0, "caches on": CACHED}


def main() -> int:
    """Run it; 1 if it cannot be run or requests failed."""
    options = parse_options("What a token costs, beside Envoy.")
    signer = Signer("RS256", "bench")
    tokens = [_token(signer, number) for number in range(TOKENS)]
    try:
        with tempfile.TemporaryDirectory(prefix="castlegate-origin-") as name, origin(Path(name)) as port:
            keys = Path(name) / "keys.json"
            keys.write_bytes(jwks(signer))
            variables = {"ORIGIN_PORT": str(port)}
            subjects = [castlegate(_config("public: true"), variables), envoy(port)]
            for variant, size in _VARIANTS.items():
                config = _config("auth: idp", _auth(keys, size))
                subjects.append(castlegate(config, variables, name=f"castlegate, {variant}"))
                subjects.append(envoy(port, name=f"envoy, {variant}", filters=[_jwt_authn(signer, size)]))
            load = Load(LOAD_PATHS, (64,), tokens=tokens)
            medians, _ = measure_all(subjects, load, options, warm_up_s=_WARM_UP_S)
    except CannotMeasure as error:
        print(error, file=sys.stderr)
        return 1
    added = _added({name: sample for (name, _), sample in medians.items()})
    print(f"\nRS256, {TOKENS} distinct tokens of {len(tokens[0])} bytes: CPU us per request, medians\n")
    for (name, _), sample in sorted(medians.items()):
        more = f"{added[name]:+8.1f}" if name in added else ""
        print(f"{name:24} {sample.cpu_us:8.1f} {more}")
    if options.json:
        options.json.write_text(json.dumps({"added_us": added}, indent=2) + "\n")
    return tell_failures(medians)


def _added(samples: dict[str, Sample]) -> dict[str, float]:
    """By subject, what it takes beyond its own plain route."""
    plain = {name: sample.cpu_us for name, sample in samples.items() if ", " not in name}
    own = {name: name.partition(", ")[0] for name in samples if ", " in name}
    return {name: round(samples[name].cpu_us - plain[of], 2) for name, of in own.items() if of in plain}


def _token(signer: Signer, number: int) -> str:
    """As an identity provider makes them."""
    more: dict[str, Any] = {
        "sub": f"5f0c1c3e-8a44-4c1b-9d53-{number:012d}",
        "jti": f"d3c7a1b2-6f5e-4a3d-8b2c-{number:012d}",
        "azp": "shop-web",
        "email": f"customer-{number}@example.com",
        "scope": "openid orders:read orders:write",
        "roles": ["customer", "reviewer"],
    }
    return signer.token(**more, exp=4_000_000_000).decode()


def _config(access: str, auth: str = "") -> str:
    head = Path(__file__).with_name("gateway_http.yaml").read_text().replace("public: true", access)
    return auth + head + "".join(f"  {route.method} {route.path}: {{call: origin}}\n" for route in ROUTES)


def _auth(keys: Path, cache: int) -> str:
    jwt = f'issuer: "{ISSUER}", audience: {AUDIENCE}, keys: "{keys}", cache: {cache}, forward: true'
    return f"auth: {{idp: {{jwt: {{{jwt}}}}}}}\n"


def _jwt_authn(signer: Signer, cache: int) -> dict[str, Any]:
    """Envoy's filter, asked for the same."""
    provider: dict[str, Any] = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "local_jwks": {"inline_string": jwks(signer).decode()},
        "forward": True,
    }
    if cache:
        provider["jwt_cache_config"] = {"jwt_cache_size": cache}
    return {
        "name": "jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"idp": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "idp"}}],
        },
    }


if __name__ == "__main__":
    sys.exit(main())
