from support.postgres_fixtures import database, postgres

__all__ = ["database", "postgres"]
