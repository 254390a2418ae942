-- +goose Up
-- One row a case: this state's half as it is now. body is sealed: the facts.
-- Its history stands in the journal, one record an event.
CREATE TABLE casework_case (
  id         TEXT    NOT NULL PRIMARY KEY, -- made up at random by the state that opened it
  service    TEXT    NOT NULL,
  version    BIGINT  NOT NULL,
  party      TEXT    NOT NULL, -- which half this is
  peer       TEXT    NOT NULL, -- the state that has the other one
  state      TEXT    NOT NULL,
  ended      BIGINT  NOT NULL, -- 1: the state is final
  ended_at   BIGINT  NOT NULL, -- since when; 0
  trouble    TEXT    NOT NULL, -- why a person should look at it, '' if none
  events     BIGINT  NOT NULL, -- so many
  sent       BIGINT  NOT NULL, -- messages to the other half
  heard      BIGINT  NOT NULL, -- messages from it, without a gap
  opened_at  BIGINT  NOT NULL,
  changed_at BIGINT  NOT NULL,
  person     BYTEA   NOT NULL, -- keyed hash of the citizen whose case it is, empty while nobody is known
  body       BYTEA   NOT NULL
);
CREATE INDEX casework_case_changed ON casework_case (changed_at, id);
CREATE INDEX casework_case_open ON casework_case (service) WHERE ended = 0;
CREATE INDEX casework_case_ended ON casework_case (service, version, ended_at, id) WHERE ended = 1;
CREATE INDEX casework_case_service ON casework_case (service, changed_at, id);
CREATE INDEX casework_case_state ON casework_case (state, changed_at, id);
CREATE INDEX casework_case_peer ON casework_case (peer, id);
CREATE INDEX casework_case_person ON casework_case (person, changed_at, id) WHERE length(person) > 0;
CREATE INDEX casework_case_trouble ON casework_case (changed_at, id) WHERE trouble <> '';

CREATE TABLE casework_event (
  case_id TEXT    NOT NULL,
  number  BIGINT  NOT NULL,
  leaf    BIGINT  NOT NULL, -- of its record
  PRIMARY KEY (case_id, number)
);

-- Deadlines that run.
CREATE TABLE casework_clock (
  case_id TEXT    NOT NULL,
  name    TEXT    NOT NULL,
  due_at  BIGINT  NOT NULL,
  next_at BIGINT  NOT NULL, -- when to let it act: later where that failed
  PRIMARY KEY (case_id, name)
);
CREATE INDEX casework_clock_next ON casework_clock (next_at);

-- Messages, numbered in each direction. What they said stands in their events.
-- work: 0 none, 1 to be posted, 2 came before one that is missing.
CREATE TABLE casework_message (
  case_id TEXT    NOT NULL,
  mine    BIGINT  NOT NULL, -- 1: sent by this half
  number  BIGINT  NOT NULL,
  event   BIGINT  NOT NULL, -- in which it was sent or heard
  work    BIGINT  NOT NULL,
  tries   BIGINT  NOT NULL,
  next_at BIGINT  NOT NULL,
  peer    TEXT    NOT NULL,
  body    BYTEA   NOT NULL, -- sealed, where it waits for another
  PRIMARY KEY (case_id, mine, number)
);
CREATE INDEX casework_message_work ON casework_message (next_at) WHERE work = 1;
CREATE INDEX casework_message_early ON casework_message (peer, next_at) WHERE work = 2;

-- Questions to registers that are not answered yet.
CREATE TABLE casework_call (
  case_id  TEXT    NOT NULL,
  event    BIGINT  NOT NULL,
  name     TEXT    NOT NULL,
  until_at BIGINT  NOT NULL,
  tries    BIGINT  NOT NULL,
  next_at  BIGINT  NOT NULL,
  PRIMARY KEY (case_id, event, name)
);
CREATE INDEX casework_call_next ON casework_call (next_at);

-- Acts by the identifiers their askers gave them: what is repeated is not done twice.
CREATE TABLE casework_act (
  id      BYTEA   NOT NULL PRIMARY KEY, -- keyed hash over asker and identifier
  digest  BYTEA   NOT NULL,             -- keyed hash of what was asked
  case_id TEXT    NOT NULL,
  event   BIGINT  NOT NULL,
  at      BIGINT  NOT NULL
);
CREATE INDEX casework_act_at ON casework_act (at);
CREATE INDEX casework_act_case ON casework_act (case_id);

-- Cases that were erased at the end of their retention: what is sent again does
-- not open them anew.
CREATE TABLE casework_buried (
  id BYTEA   NOT NULL PRIMARY KEY, -- keyed hash of the case
  at BIGINT  NOT NULL
);
CREATE INDEX casework_buried_at ON casework_buried (at);

-- +goose Down
DROP TABLE casework_buried;
DROP TABLE casework_act;
DROP TABLE casework_call;
DROP TABLE casework_message;
DROP TABLE casework_clock;
DROP TABLE casework_event;
DROP TABLE casework_case;
