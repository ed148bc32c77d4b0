"""Which of a device's sessions speaks for it, when a new one is about to have its welcome."""

from gateway.edge.device.context import DeviceContext
from gateway.edge.fleet import Member
from gateway.session.errors import Revoked


def may_speak(context: DeviceContext, member: Member) -> bool:
    """Whether a session may have its welcome. If not, the session is ended.

    The look-up before the welcome takes time, in which the device may be revoked, or a newer
    connection of it may have had its welcome.
    """
    if context.revocations.revoked(member.identity):
        member.end(Revoked())
        return False
    newer = context.fleet.find(*member.key)
    if newer is not None and newer.fence > member.fence:
        member.supersede()
        return False
    return True


def take_over(context: DeviceContext, member: Member) -> None:
    """Let this session speak for the device from now on, on this node and on all nodes.

    Not before its welcome: until then the session before it serves the device, as a node that
    drains promises (make before break). What that session still stores meanwhile is stored after
    the look-up, so JetStream knows it as a duplicate.
    """
    context.memory.arrivals.over(member)
    older = context.fleet.add(member)
    if older is not None:
        older.supersede()
    context.watch.established(member)
