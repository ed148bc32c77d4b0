"""A sink's table in PostgreSQL: rows and position in one transaction."""
