"""A real Apache Kafka broker (KRaft, one node) from its own jars."""

from tests.servers.kafka.broker import KafkaServer, start_kafka

__all__ = ["KafkaServer", "start_kafka"]
