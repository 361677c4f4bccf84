"""Real behaviour from a public data set, produced as events: loaded as history, or lived through."""
