"""castlegate: an API gateway for microservices that talk over Kafka."""

__version__ = "0.1.0"
