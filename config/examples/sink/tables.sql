-- Made with `tidegate sink --events config/examples/sink/events.toml --create`; the type of soc is set
-- by hand, since a path into data may be anything.
CREATE TABLE IF NOT EXISTS battery (
    device text NOT NULL,
    type text NOT NULL,
    at timestamptz NOT NULL,
    soc real CHECK (soc <> 13),  -- so that the example has a dead letter
    stream_seq bigint PRIMARY KEY
);
CREATE TABLE IF NOT EXISTS battery_now (
    device text PRIMARY KEY,
    at timestamptz NOT NULL,
    soc real,
    stream_seq bigint NOT NULL
);
