"""The soak: the product's verbs on real Kafka and real S3 under faults, and what came of it."""
