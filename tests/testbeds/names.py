"""A small real DNS server on UDP and TCP: zones that tests change while it runs, and what it was asked."""

import contextlib
import socket
import struct
import threading
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from tests.testbeds.processes import free_port


class NameServer:
    """Answers from `zone`: (name, type) → records. A name of which nothing is said does not exist."""

    def __init__(self) -> None:
        self.zone: dict[tuple[str, str], list[str]] = {}
        self.ttl = 1
        self.rcode = dns.rcode.NOERROR  # another: every answer fails with it
        self.silent = False
        self.truncates = False  # answers over UDP: asked again over TCP
        self.asked: list[tuple[str, str, str]] = []  # transport, name, type
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.port = free_port()
        self._udp.bind(("127.0.0.1", self.port))
        self._tcp = socket.create_server(("127.0.0.1", self.port))
        self._threads = [threading.Thread(target=self._serve_udp), threading.Thread(target=self._serve_tcp)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tcp.shutdown(socket.SHUT_RDWR)
        self._tcp.close()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join(5)
        self._udp.close()

    def say(self, name: str, kind: str, *records: str) -> None:
        """These are its records from now on; none: the name is there, without any of this type."""
        self.zone[name, kind] = list(records)

    def _answer(self, query: bytes, transport: str) -> bytes:
        asked = dns.message.from_wire(query)
        question = asked.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((transport, name, kind))
        answer = dns.message.make_response(asked)
        records = self.zone.get((name, kind), [])
        if self.rcode != dns.rcode.NOERROR:
            answer.set_rcode(self.rcode)
        elif not any(known == name for known, _ in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif transport == "udp" and self.truncates:
            answer.flags |= dns.flags.TC
        elif records:
            answer.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", kind, *records))
        return answer.to_wire()

    def _serve_udp(self) -> None:
        while True:
            query, client = self._udp.recvfrom(4096)
            if not query:
                return
            answer = self._answer(query, "udp")
            if not self.silent:
                self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError, struct.error):
                connection.settimeout(5)
                (length,) = struct.unpack("!H", connection.recv(2))
                answer = self._answer(connection.recv(length, socket.MSG_WAITALL), "tcp")
                if not self.silent:
                    connection.sendall(struct.pack("!H", len(answer)) + answer)
