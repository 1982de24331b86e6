-- A store as version 1 of the schema had it, with one flow.
CREATE TABLE node (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- `last` in every dictionary: the latest hour since 1970 whose facts may refer to the row.
CREATE TABLE endpoint (
    id INTEGER PRIMARY KEY,
    kind INTEGER NOT NULL,
    address BLOB NOT NULL,
    host TEXT,
    unit TEXT,
    container TEXT,
    executable TEXT,
    unresolved INTEGER,
    name TEXT NOT NULL,
    entity TEXT NOT NULL,
    last INTEGER NOT NULL
) STRICT;
CREATE INDEX endpoint_address ON endpoint (address);
CREATE INDEX endpoint_name ON endpoint (name);
CREATE INDEX endpoint_entity ON endpoint (entity);

CREATE TABLE service (
    id INTEGER PRIMARY KEY,
    address BLOB NOT NULL,
    port INTEGER NOT NULL,
    last INTEGER NOT NULL,
    UNIQUE (address, port)
) STRICT;

-- A flow key without its window. Service 0: none.
CREATE TABLE edge (
    id INTEGER PRIMARY KEY,
    source INTEGER NOT NULL,
    destination INTEGER NOT NULL,
    destination_port INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    service INTEGER NOT NULL,
    class INTEGER NOT NULL,
    node INTEGER NOT NULL,
    ip_version INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX edge_key
    ON edge (source, destination, destination_port, protocol, service, class, node);
CREATE INDEX edge_destination ON edge (destination);

-- `horizon`: seconds since 1970 before which the level holds nothing. `retention` 0: not kept.
CREATE TABLE level (
    seconds INTEGER PRIMARY KEY,
    retention INTEGER NOT NULL,
    horizon INTEGER NOT NULL
) STRICT;
INSERT INTO level VALUES (10, 0, 0), (60, 0, 0), (3600, 0, 0);

CREATE TABLE epoch (
    id INTEGER PRIMARY KEY,
    epoch BLOB NOT NULL UNIQUE,
    node TEXT NOT NULL,
    last INTEGER NOT NULL
) STRICT;

CREATE TABLE committed (
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (epoch, first)
) STRICT, WITHOUT ROWID;

CREATE TABLE digest (
    epoch INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (epoch, sequence)
) STRICT, WITHOUT ROWID;

CREATE TABLE gap (
    id INTEGER PRIMARY KEY,
    node INTEGER NOT NULL,
    epoch BLOB NOT NULL,
    sequence INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    from_seconds INTEGER NOT NULL,
    to_seconds INTEGER NOT NULL,
    connections INTEGER NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    bytes_bound INTEGER
) STRICT;
CREATE INDEX gap_to ON gap (to_seconds);

CREATE TABLE counter (
    hour INTEGER NOT NULL,
    node INTEGER NOT NULL,
    name TEXT NOT NULL,
    value INTEGER NOT NULL,
    PRIMARY KEY (hour, node, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE flow_10s (window INTEGER NOT NULL, edge INTEGER NOT NULL, bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL, packets_sent INTEGER NOT NULL, packets_received INTEGER NOT NULL, connections_opened INTEGER NOT NULL, connections_closed INTEGER NOT NULL, connections_failed INTEGER NOT NULL, connections_unreplied INTEGER NOT NULL, connections_uncounted INTEGER NOT NULL, PRIMARY KEY (window, edge)) STRICT, WITHOUT ROWID;
CREATE TABLE total_10s (window INTEGER NOT NULL, key INTEGER NOT NULL, bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL, packets_sent INTEGER NOT NULL, packets_received INTEGER NOT NULL, connections_opened INTEGER NOT NULL, connections_closed INTEGER NOT NULL, connections_failed INTEGER NOT NULL, connections_unreplied INTEGER NOT NULL, connections_uncounted INTEGER NOT NULL, PRIMARY KEY (window, key)) STRICT, WITHOUT ROWID;
CREATE TABLE flow_1m (window INTEGER NOT NULL, edge INTEGER NOT NULL, bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL, packets_sent INTEGER NOT NULL, packets_received INTEGER NOT NULL, connections_opened INTEGER NOT NULL, connections_closed INTEGER NOT NULL, connections_failed INTEGER NOT NULL, connections_unreplied INTEGER NOT NULL, connections_uncounted INTEGER NOT NULL, PRIMARY KEY (window, edge)) STRICT, WITHOUT ROWID;
CREATE TABLE total_1m (window INTEGER NOT NULL, key INTEGER NOT NULL, bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL, packets_sent INTEGER NOT NULL, packets_received INTEGER NOT NULL, connections_opened INTEGER NOT NULL, connections_closed INTEGER NOT NULL, connections_failed INTEGER NOT NULL, connections_unreplied INTEGER NOT NULL, connections_uncounted INTEGER NOT NULL, PRIMARY KEY (window, key)) STRICT, WITHOUT ROWID;
CREATE TABLE flow_1h (window INTEGER NOT NULL, edge INTEGER NOT NULL, bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL, packets_sent INTEGER NOT NULL, packets_received INTEGER NOT NULL, connections_opened INTEGER NOT NULL, connections_closed INTEGER NOT NULL, connections_failed INTEGER NOT NULL, connections_unreplied INTEGER NOT NULL, connections_uncounted INTEGER NOT NULL, PRIMARY KEY (window, edge)) STRICT, WITHOUT ROWID;
CREATE TABLE total_1h (window INTEGER NOT NULL, key INTEGER NOT NULL, bytes_sent INTEGER NOT NULL, bytes_received INTEGER NOT NULL, packets_sent INTEGER NOT NULL, packets_received INTEGER NOT NULL, connections_opened INTEGER NOT NULL, connections_closed INTEGER NOT NULL, connections_failed INTEGER NOT NULL, connections_unreplied INTEGER NOT NULL, connections_uncounted INTEGER NOT NULL, PRIMARY KEY (window, key)) STRICT, WITHOUT ROWID;

-- n1: 10.0.0.1 dialled the service 10.96.0.1:80 and reached 10.0.0.2:8080; 700 bytes there, 70 back.
INSERT INTO node VALUES (1, 'n1');
INSERT INTO endpoint VALUES (1, 2, x'0a000001', NULL, NULL, NULL, NULL, NULL, '10.0.0.1', 'local/10.0.0.1', 498660);
INSERT INTO endpoint VALUES (2, 1, x'0a000002', 'n1', 'nginx.service', NULL, NULL, NULL, 'nginx.service', 'host/n1/nginx.service', 498660);
INSERT INTO service VALUES (1, x'0a600001', 80, 498660);
INSERT INTO edge VALUES (1, 1, 2, 8080, 6, 1, 0, 1, 4, 498660);
UPDATE level SET retention = CASE seconds WHEN 10 THEN 86400 WHEN 60 THEN 1209600 ELSE 34560000 END;
INSERT INTO epoch VALUES (1, x'00000000000000000000000000000007', 'n1', 1795176010);
INSERT INTO committed VALUES (1, 1, 1);
INSERT INTO digest VALUES (1, 1, x'00000000000000000000000000000009');
INSERT INTO flow_10s VALUES (2795040, 1, 700, 70, 7, 1, 1, 0, 0, 0, 0);
INSERT INTO flow_1m VALUES (465840, 1, 700, 70, 7, 1, 1, 0, 0, 0, 0);
INSERT INTO flow_1h VALUES (7764, 1, 700, 70, 7, 1, 1, 0, 0, 0, 0);
INSERT INTO total_10s VALUES (2795040, 16778756, 700, 70, 7, 1, 1, 0, 0, 0, 0);
INSERT INTO total_1m VALUES (465840, 16778756, 700, 70, 7, 1, 1, 0, 0, 0, 0);
INSERT INTO total_1h VALUES (7764, 16778756, 700, 70, 7, 1, 1, 0, 0, 0, 0);
PRAGMA application_id = 2003134834;
PRAGMA user_version = 1;
