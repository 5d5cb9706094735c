"""Whether Kafka's brokers can be reached: where the configuration says, and where they tell clients to go."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from castlegate.config.addresses import parse_address
from castlegate.doctor.findings import Finding, Unreachable, connect, in_thread
from castlegate.upstreams.kafka.client import Clients
from castlegate.upstreams.kafka.settings import Kafka

_SLACK_S = 1.0  # for a client that is slower than its own timeouts

_ADVICE = {
    KafkaError._AUTHENTICATION: "correct 'sasl.mechanisms', 'sasl.username' and 'sasl.password' in 'kafka.librdkafka'",
    KafkaError._SSL: "see whether the port speaks TLS, and whether 'ssl.ca.location' knows the broker's certificate",
    KafkaError._TRANSPORT: "see whether the port speaks what 'security.protocol' in 'kafka.librdkafka' says",
}
_ELSE = "see the broker's log"


class Cluster(NamedTuple):
    """What the brokers told, with a client that knows them."""

    admin: AdminClient
    usable: bool  # whether each of them can be reached where it says it is


async def bootstrap(settings: Kafka, within: float) -> list[Finding]:
    """The addresses that the configuration names."""
    addresses = [address.strip() for address in settings.bootstrap.split(",")]
    return list(await asyncio.gather(*(_bootstrap(address, within) for address in addresses)))


async def _bootstrap(address: str, within: float) -> Finding:
    check = f"kafka bootstrap {address}"
    try:
        found = await connect(*parse_address(address), within)
    except Unreachable as failure:
        return Finding(check, "wrong", failure.reason, failure.advice)
    return Finding(check, "well", f"{found} accepts connections")


async def cluster(settings: Kafka, clients: Clients, within: float) -> tuple[list[Finding], Cluster | None]:
    """Ask for the brokers, and try each where it says it is; None if nobody can be asked anything."""
    errors: list[KafkaError] = []
    admin = AdminClient(clients.admin(errors.append))
    try:
        # Of one topic: those of a large cluster are many.
        told = await in_thread(lambda: admin.list_topics(settings.inbox, timeout=within), within + _SLACK_S)
    except (KafkaException, TimeoutError) as failure:
        admin.poll(0)  # serves `errors`
        return [_not_told(failure, errors)], None
    addresses = {broker.id: (str(broker.host), broker.port) for broker in told.brokers.values()}
    found = await asyncio.gather(
        *(_advertised(number, host, port, settings, within) for number, (host, port) in sorted(addresses.items()))
    )
    if not found:
        nobody = Finding(
            "kafka brokers", "wrong", "the cluster names no broker", "wait until its brokers have registered"
        )
        return [nobody], None
    return list(found), Cluster(admin, all(each.verdict == "well" for each in found))


def _not_told(failure: Exception, errors: list[KafkaError]) -> Finding:
    """Why no broker answers, in the words of the last error that says more than that."""
    telling = [error for error in errors if error.code() != KafkaError._ALL_BROKERS_DOWN]
    check = "kafka brokers"
    if telling:
        code = next((error.code() for error in telling if error.code() in _ADVICE), telling[-1].code())
        error = next(error for error in telling if error.code() == code)
        return Finding(check, "wrong", error.str(), _ADVICE.get(code, _ELSE))
    error_ = failure.args[0] if isinstance(failure, KafkaException) else "no answer in time"
    says = error_.str() if isinstance(error_, KafkaError) else str(error_)
    return Finding(
        check,
        "wrong",
        f"they do not say who they are: {says}",
        "see whether it is Kafka that listens there, and whether it hangs",
    )


async def _advertised(number: int, host: str, port: int, settings: Kafka, within: float) -> Finding:
    check = f"kafka broker {number}"
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = await connect(host, port, within)
    except Unreachable as failure:
        says = (
            f"it is known as {address} to its clients (advertised.listeners), which cannot be reached from here: "
            f"{failure.reason}. Clients find brokers at {settings.bootstrap} and are then sent to that address"
        )
        advice = f"set 'advertised.listeners' of broker {number} to an address that is reached from here"
        return Finding(check, "wrong", says, advice)
    return Finding(check, "well", f"{address} accepts connections ({found})")
