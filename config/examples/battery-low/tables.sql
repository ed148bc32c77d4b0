-- Made with `tidegate sink --events config/examples/battery-low/events.toml --create`; the type of soc is
-- set by hand, since a path into data may be anything.
CREATE TABLE IF NOT EXISTS maintenance (
    vehicle text NOT NULL,
    due timestamptz NOT NULL,
    soc numeric,
    stream_seq bigint PRIMARY KEY
);
