"""Names, schemas and layouts: what everything else agrees on."""
