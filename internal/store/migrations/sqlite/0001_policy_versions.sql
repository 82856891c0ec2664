-- Every version of every policy. Only state ever changes; checksum covers the other columns.
CREATE TABLE policy_versions (
    name           TEXT    NOT NULL,
    version        INTEGER NOT NULL CHECK (version > 0),
    hash           TEXT    NOT NULL,
    document       BLOB    NOT NULL,
    blueprint      TEXT    NOT NULL,
    author         TEXT    NOT NULL,
    comment        TEXT    NOT NULL,
    source         TEXT    NOT NULL,
    file           TEXT    NOT NULL,
    state          TEXT    NOT NULL CHECK (state IN ('active', 'superseded', 'deleted')),
    create_time_us INTEGER NOT NULL, -- microseconds since 1970 UTC
    limiters       TEXT    NOT NULL, -- JSON
    checksum       BLOB    NOT NULL, -- SHA-256
    PRIMARY KEY (name, version)
) STRICT;

-- At most one version of a policy is in force.
CREATE UNIQUE INDEX policy_versions_active ON policy_versions (name) WHERE state = 'active';
