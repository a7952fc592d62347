"""Records on Kafka: connections, topics, the identity of logs, the consumer loop, dead letters."""
