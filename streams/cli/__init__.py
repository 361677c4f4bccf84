"""The command line: opportune."""
