"""Programs that do the same job on the same broker; each is started as a child process by a suite."""
