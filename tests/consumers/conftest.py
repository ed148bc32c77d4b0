from support.postgres_fixtures import database, postgres
from support.rule_streams import stream

__all__ = ["database", "postgres", "stream"]
