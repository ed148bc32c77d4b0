"""The names of all streams that the gateway keeps."""

from typing import Final

EVENTS: Final = "EVENTS"
"""What devices sent, and what rules made of it."""
DEADLETTERS: Final = "DEADLETTERS"
"""What devices sent and what is no event, or what no consumer could use."""
STATE: Final = "STATE"
"""What each device should be like: `state.<tenant>.<device>`, the last message of each."""
COMMANDS: Final = "COMMANDS"
"""Commands that wait for their device, `commands.queue.<tenant>.<device>`, and what became of each,
`commands.status.<tenant>.<device>.<id>`."""
PRESENCE: Final = "PRESENCE"
"""When each device came and went: `presence.<tenant>.<device>`."""

AUDITED: Final = (EVENTS, DEADLETTERS)
"""What devices sent. The settings decide whether anybody may delete from these streams."""
STREAMS: Final = (*AUDITED, STATE, COMMANDS, PRESENCE)
