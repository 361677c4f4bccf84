"""What moves: the engine, the agents, the worker and the command line."""
