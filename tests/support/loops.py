"""A loop whose time a test moves, for what keeps timers and needs no sockets."""


class Timer:
    def __init__(self, at, callback):
        self.at, self.callback, self.cancelled = at, callback, False

    def cancel(self):
        self.cancelled = True


class DrivenLoop:
    """Timers and the end of a turn."""

    def __init__(self):
        self.now = 0.0
        self.made = 0
        self.timers = []
        self.soon = []

    def time(self):
        return self.now

    def call_soon(self, callback):
        self.soon.append(Timer(self.now, callback))
        return self.soon[-1]

    def call_later(self, delay_s, callback):
        self.made += 1
        self.timers.append(Timer(self.now + delay_s, callback))
        return self.timers[-1]

    def turn(self):
        soon, self.soon = self.soon, []
        for handle in soon:
            if not handle.cancelled:
                handle.callback()

    def until(self, then):
        """Let time pass."""
        while due := [each for each in self.timers if each.at <= then and not each.cancelled]:
            timer = min(due, key=lambda each: each.at)
            self.timers.remove(timer)
            self.now = max(self.now, timer.at)
            timer.callback()
        self.now = then

    @property
    def waiting(self):
        return [each for each in self.timers if not each.cancelled]
