"""RECORD: from Kafka into ClickHouse, each record once."""
