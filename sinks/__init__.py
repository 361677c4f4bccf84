"""Where things land: ClickHouse, transports, the contact vault, the model registry."""
