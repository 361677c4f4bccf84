"""Batch-native Faust: one cut, one transaction."""
