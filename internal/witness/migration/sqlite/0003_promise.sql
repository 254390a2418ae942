-- +goose Up
-- Which of this state's leaves each of its processes is done with: below it,
-- the other states' promises were kept, or an alarm says that they were not.
CREATE TABLE witness_promise (
    process TEXT    NOT NULL PRIMARY KEY,
    leaf    INTEGER NOT NULL,
    beat_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Alarms, this state's and those that others told it of. id is the SHA-256 of
-- the note.
CREATE TABLE witness_alarm (
    id       BLOB    NOT NULL PRIMARY KEY,
    raiser   TEXT    NOT NULL,
    heard_at INTEGER NOT NULL,
    note     BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX witness_alarm_heard ON witness_alarm (raiser, heard_at);

-- Who has been told of this state's alarms.
CREATE TABLE witness_alarm_told (
    id   BLOB NOT NULL,
    whom TEXT NOT NULL,
    PRIMARY KEY (id, whom)
) STRICT, WITHOUT ROWID;
