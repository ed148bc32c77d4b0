from support.postgres_fixtures import database, postgres_url

__all__ = ["database", "postgres_url"]
