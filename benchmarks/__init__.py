"""How fast it is: `make bench SUITE=decide`."""
