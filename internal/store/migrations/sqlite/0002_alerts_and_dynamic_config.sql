-- Alerts, firing and resolved. The server bounds their number.
CREATE TABLE alerts (
    id                 INTEGER NOT NULL PRIMARY KEY CHECK (id > 0),
    name               TEXT    NOT NULL,
    severity           TEXT    NOT NULL,
    policy             TEXT    NOT NULL,
    component          TEXT    NOT NULL,
    state              TEXT    NOT NULL CHECK (state IN ('firing', 'resolved')),
    labels             TEXT    NOT NULL, -- JSON
    channels           TEXT    NOT NULL, -- JSON
    start_time_us      INTEGER NOT NULL, -- microseconds since 1970 UTC
    last_time_us       INTEGER NOT NULL,
    end_time_us        INTEGER,          -- NULL while it fires
    resolve_timeout_us INTEGER NOT NULL,
    delivery_error     TEXT    NOT NULL,
    pending            TEXT    NOT NULL  -- JSON: names of targets to be told
) STRICT;

CREATE INDEX alerts_resolved ON alerts (end_time_us, id) WHERE state = 'resolved';

-- Dynamic configuration of policies. It outlives versions, and deletion, of the policy.
CREATE TABLE dynamic_configs (
    policy         TEXT    NOT NULL PRIMARY KEY,
    config         TEXT    NOT NULL, -- a JSON object
    update_time_us INTEGER NOT NULL
) STRICT;
