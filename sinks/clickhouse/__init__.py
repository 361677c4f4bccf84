"""ClickHouse: the audit trail as tables, how rows get in, and how they are read."""
