"""Figures of the report, counted from decoded records: no Kafka here."""
