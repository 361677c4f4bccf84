"""What reconciliation reads and compares, witness by witness."""
