-- Made with `tidegate sink --events config/examples/lab-result/events.toml --create`; the types of paths
-- into data are set by hand, since such a path may be anything.
CREATE TABLE IF NOT EXISTS chart (
    patient text NOT NULL,
    analyte text NOT NULL,
    value jsonb NOT NULL,
    flag text,
    measured timestamptz NOT NULL,
    stream_seq bigint PRIMARY KEY
);
