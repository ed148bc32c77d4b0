-- The table of events.toml: `tidegate sink --events events.toml --create` prints it, to be edited.
CREATE TABLE IF NOT EXISTS battery (
    device text NOT NULL,
    type text NOT NULL,
    at timestamptz NOT NULL,
    soc real,
    stream_seq bigint PRIMARY KEY
);
