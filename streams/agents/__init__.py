"""The story of each role, one handler per file: gather, decide, apply."""
