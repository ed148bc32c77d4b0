from support.echo_connections import serve

__all__ = ["serve"]
