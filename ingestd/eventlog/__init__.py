"""A replicated log that takes events one by one: Kafka, or a stream of NATS JetStream."""
