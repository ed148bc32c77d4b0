from support.postgres_fixtures import database, postgres_url
from support.rule_streams import stream

__all__ = ["database", "postgres_url", "stream"]
