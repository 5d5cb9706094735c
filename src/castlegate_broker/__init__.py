"""A small in-memory Kafka broker for development and tests, speaking Kafka's wire protocol on a TCP port.

A program of its own (`python -m castlegate_broker`): it imports nothing of the gateway, keeps nothing on disk,
and is one node without replication, transactions, authentication or TLS.
"""
