"""Pure functions over columns: everything that is decided, nothing that is done."""
