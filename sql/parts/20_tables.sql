-- Definitions: what users create. Written by the API, read by the workers.

CREATE TABLE retl.instance (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  id uuid NOT NULL,
  system_identifier bigint NOT NULL,
  database oid NOT NULL,
  hosts text[] NOT NULL,
  armed_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE retl.instance IS 'Clone guard: where this database may deliver from; a copy elsewhere refuses until retl.arm()';
COMMENT ON COLUMN retl.instance.one IS 'Always true: the table has one row at most';
COMMENT ON COLUMN retl.instance.id IS 'Drawn anew when a copy is armed; part of every idempotency key';
COMMENT ON COLUMN retl.instance.system_identifier IS 'The cluster''s identifier when armed';
COMMENT ON COLUMN retl.instance.database IS 'The database''s OID when armed';
COMMENT ON COLUMN retl.instance.hosts IS 'Host identities that may deliver';
COMMENT ON COLUMN retl.instance.armed_at IS 'When';

CREATE TABLE retl.connector (
  name text COLLATE "C" PRIMARY KEY,
  definition json NOT NULL,
  built_in boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE retl.connector IS 'What a kind of destination can do: authentication, actions, fields, limits';
COMMENT ON COLUMN retl.connector.name IS 'Name, as destinations refer to it';
COMMENT ON COLUMN retl.connector.definition IS 'The connector file';
COMMENT ON COLUMN retl.connector.built_in IS 'Comes with the extension';

CREATE TABLE retl.model (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL,
  owner regrole NOT NULL,
  source text NOT NULL DEFAULT 'local',
  query text NOT NULL,
  relation text,
  search_path text NOT NULL,
  key text[] NOT NULL,
  description text,
  enabled boolean NOT NULL DEFAULT true,
  managed_by jsonb,
  max_skip interval NOT NULL DEFAULT '0',
  watermark text,
  watermark_overlap interval NOT NULL DEFAULT '1 hour',
  full_every interval NOT NULL DEFAULT '1 day',
  timeout interval,
  created_at timestamptz NOT NULL DEFAULT now(),
  altered_at timestamptz NOT NULL DEFAULT now()
);
-- Partial, so that no foreign key could refer to it: a rename is in no worker's way then.
CREATE UNIQUE INDEX model_name ON retl.model (name) WHERE name IS NOT NULL;
COMMENT ON TABLE retl.model IS 'Models: named queries with a key';
COMMENT ON COLUMN retl.model.id IS 'Identifier; part of the names of the model''s tables in retl_data';
COMMENT ON COLUMN retl.model.name IS 'Name';
COMMENT ON COLUMN retl.model.owner IS 'Role with whose rights the query runs';
COMMENT ON COLUMN retl.model.source IS 'Where the query runs: local';
COMMENT ON COLUMN retl.model.query IS 'One SELECT';
COMMENT ON COLUMN retl.model.relation IS 'Qualified name, where the model was given as a relation';
COMMENT ON COLUMN retl.model.search_path IS 'Path in which the names of the query are looked up: that of its creator';
COMMENT ON COLUMN retl.model.key IS 'Key columns';
COMMENT ON COLUMN retl.model.description IS 'For people';
COMMENT ON COLUMN retl.model.enabled IS 'False: no snapshot is taken';
COMMENT ON COLUMN retl.model.managed_by IS 'What keeps it up to date, where that is no person: {"dbt": project, "node": unique_id}';
COMMENT ON COLUMN retl.model.max_skip IS 'For how long at most it is not read while nothing that it reads seems written; 0: it is always read';
COMMENT ON COLUMN retl.model.watermark IS 'Column that tells when a row was written last; rows from its greatest value on are read. NULL: all are';
COMMENT ON COLUMN retl.model.watermark_overlap IS 'By how much further back than that';
COMMENT ON COLUMN retl.model.full_every IS 'All rows are read after this time at the latest, for deletes and for rows that came late';
COMMENT ON COLUMN retl.model.timeout IS 'How long a snapshot may read; NULL: as long as it takes';
COMMENT ON COLUMN retl.model.created_at IS 'When created';
COMMENT ON COLUMN retl.model.altered_at IS 'When last altered';

CREATE TABLE retl.destination (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL,
  owner regrole NOT NULL,
  connector text COLLATE "C" NOT NULL REFERENCES retl.connector,
  settings jsonb NOT NULL,
  enabled boolean NOT NULL DEFAULT true,
  managed_by jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  altered_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX destination_name ON retl.destination (name) WHERE name IS NOT NULL;
COMMENT ON TABLE retl.destination IS 'Configured accounts at tools';
COMMENT ON COLUMN retl.destination.id IS 'Identifier';
COMMENT ON COLUMN retl.destination.name IS 'Name';
COMMENT ON COLUMN retl.destination.owner IS 'Role that may use and alter it';
COMMENT ON COLUMN retl.destination.connector IS 'Kind of destination';
COMMENT ON COLUMN retl.destination.settings IS 'The connector''s settings, defaults filled in';
COMMENT ON COLUMN retl.destination.enabled IS 'False: nothing is sent';
COMMENT ON COLUMN retl.destination.managed_by IS 'What keeps it up to date, where that is no person: {"dbt": project, "node": unique_id}';
COMMENT ON COLUMN retl.destination.created_at IS 'When created';
COMMENT ON COLUMN retl.destination.altered_at IS 'When last altered';

CREATE TABLE retl.destination_state (
  destination bigint PRIMARY KEY REFERENCES retl.destination ON DELETE CASCADE,
  failures int NOT NULL DEFAULT 0,
  pauses int NOT NULL DEFAULT 0,
  breaker_since timestamptz,
  retry_at timestamptz,
  error text,
  paused_until timestamptz,
  concurrency int,
  requests_left float8,
  rows_left float8,
  day date,
  requests_today bigint NOT NULL DEFAULT 0,
  rows_today bigint NOT NULL DEFAULT 0,
  quota_full boolean NOT NULL DEFAULT false,
  saved_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE retl.destination_state IS 'How much may be sent to destinations now; written by the delivery worker';
COMMENT ON COLUMN retl.destination_state.destination IS 'Destination';
COMMENT ON COLUMN retl.destination_state.failures IS 'Requests in a row that failed';
COMMENT ON COLUMN retl.destination_state.pauses IS 'Pauses of the circuit breaker in a row; 0: it is closed';
COMMENT ON COLUMN retl.destination_state.breaker_since IS 'When it opened';
COMMENT ON COLUMN retl.destination_state.retry_at IS 'When it lets the next request through';
COMMENT ON COLUMN retl.destination_state.error IS 'What went wrong last, where the last request failed';
COMMENT ON COLUMN retl.destination_state.paused_until IS 'Until when the destination asked for a pause';
COMMENT ON COLUMN retl.destination_state.concurrency IS 'Requests under way at once, as it can take them now';
COMMENT ON COLUMN retl.destination_state.requests_left IS 'Requests that may be sent at once; NULL: no rate';
COMMENT ON COLUMN retl.destination_state.rows_left IS 'Records that may be sent at once; NULL: no rate';
COMMENT ON COLUMN retl.destination_state.day IS 'Day in UTC of which the next two are';
COMMENT ON COLUMN retl.destination_state.requests_today IS 'Requests taken from its quota';
COMMENT ON COLUMN retl.destination_state.rows_today IS 'Records taken from its quota';
COMMENT ON COLUMN retl.destination_state.quota_full IS 'Nothing more of that day''s quota is left';
COMMENT ON COLUMN retl.destination_state.saved_at IS 'When this was written';

CREATE TABLE retl.secret (
  destination bigint NOT NULL REFERENCES retl.destination ON DELETE CASCADE,
  name text COLLATE "C" NOT NULL,
  value text,
  reference jsonb,
  altered_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (destination, name),
  CHECK ((value IS NULL) <> (reference IS NULL))
);
COMMENT ON TABLE retl.secret IS 'Secrets of destinations; readable by retl_delivery alone, never dumped';
COMMENT ON COLUMN retl.secret.destination IS 'Destination';
COMMENT ON COLUMN retl.secret.name IS 'Name, as the connector calls it';
COMMENT ON COLUMN retl.secret.value IS 'The secret itself, or NULL where it is a reference';
COMMENT ON COLUMN retl.secret.reference IS 'Where the delivery worker reads it: {"file": path} or {"env": name}';
COMMENT ON COLUMN retl.secret.altered_at IS 'When last set';

CREATE TABLE retl.mapping (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text COLLATE "C" NOT NULL,
  owner regrole NOT NULL,
  model bigint NOT NULL REFERENCES retl.model,
  destination bigint NOT NULL REFERENCES retl.destination,
  action text COLLATE "C" NOT NULL,
  version int NOT NULL DEFAULT 1,
  schedule text NOT NULL DEFAULT 'manual',
  scheduled_since timestamptz NOT NULL DEFAULT now(),
  enabled boolean NOT NULL DEFAULT false,
  managed_by jsonb,
  created_at timestamptz NOT NULL DEFAULT now(),
  altered_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX mapping_name ON retl.mapping (name) WHERE name IS NOT NULL;
CREATE INDEX mapping_model ON retl.mapping (model);
CREATE INDEX mapping_destination ON retl.mapping (destination);
COMMENT ON TABLE retl.mapping IS 'Mappings: model x destination x action';
COMMENT ON COLUMN retl.mapping.id IS 'Identifier';
COMMENT ON COLUMN retl.mapping.name IS 'Name';
COMMENT ON COLUMN retl.mapping.owner IS 'Role that may alter, sync and drop it';
COMMENT ON COLUMN retl.mapping.model IS 'Model';
COMMENT ON COLUMN retl.mapping.destination IS 'Destination';
COMMENT ON COLUMN retl.mapping.action IS 'Action of the destination''s connector';
COMMENT ON COLUMN retl.mapping.version IS 'Newest version';
COMMENT ON COLUMN retl.mapping.schedule IS 'manual, an interval, days and times, or a cron line';
COMMENT ON COLUMN retl.mapping.scheduled_since IS 'When the mapping was enabled or got its schedule: intervals are counted from there';
COMMENT ON COLUMN retl.mapping.enabled IS 'New mappings start disabled';
COMMENT ON COLUMN retl.mapping.managed_by IS 'What keeps it up to date, where that is no person: {"dbt": project, "node": unique_id}';
COMMENT ON COLUMN retl.mapping.created_at IS 'When created';
COMMENT ON COLUMN retl.mapping.altered_at IS 'When last altered';

CREATE TABLE retl.mapping_version (
  mapping bigint NOT NULL REFERENCES retl.mapping ON DELETE CASCADE,
  version int NOT NULL,
  fields json NOT NULL,
  records text[] NOT NULL,
  filter text,
  batch_size int,
  update_when text NOT NULL,
  max_delete_percent numeric NOT NULL,
  max_change_percent numeric NOT NULL,
  brake_min_rows int NOT NULL,
  allow_empty boolean NOT NULL,
  max_attempts int,
  max_age interval,
  resend text NOT NULL DEFAULT 'none',
  created_at timestamptz NOT NULL DEFAULT now(),
  created_by regrole NOT NULL,
  PRIMARY KEY (mapping, version)
);
COMMENT ON TABLE retl.mapping_version IS 'What a mapping sends; an edit makes a new version, batches keep theirs';
COMMENT ON COLUMN retl.mapping_version.mapping IS 'Mapping';
COMMENT ON COLUMN retl.mapping_version.version IS 'Number, from 1';
COMMENT ON COLUMN retl.mapping_version.fields IS 'The destination''s fields in the mapping language';
COMMENT ON COLUMN retl.mapping_version.records IS 'Operations sent: any of added, updated, deleted';
COMMENT ON COLUMN retl.mapping_version.filter IS 'Condition over the model''s columns: part of what the mapping sees';
COMMENT ON COLUMN retl.mapping_version.batch_size IS 'Records a request; NULL: the destination''s';
COMMENT ON COLUMN retl.mapping_version.update_when IS 'What makes a row updated: payload, any, or column names';
COMMENT ON COLUMN retl.mapping_version.max_delete_percent IS 'Brake: share of rows deleted above which a run is held';
COMMENT ON COLUMN retl.mapping_version.max_change_percent IS 'Brake: share of rows updated above which a run is held';
COMMENT ON COLUMN retl.mapping_version.brake_min_rows IS 'Fewer rows than this never trip a share';
COMMENT ON COLUMN retl.mapping_version.allow_empty IS 'Whether a model without rows may delete everything';
COMMENT ON COLUMN retl.mapping_version.max_attempts IS 'Attempts at a request before its records fail; NULL: 15 of those that are answered, no limit of the others';
COMMENT ON COLUMN retl.mapping_version.max_age IS 'How long after its first attempt a request is tried; NULL: no limit';
COMMENT ON COLUMN retl.mapping_version.resend IS 'What the first run of it sends again: none, changed (rows of which something else is sent than by the version before), all';
COMMENT ON COLUMN retl.mapping_version.created_at IS 'When made';
COMMENT ON COLUMN retl.mapping_version.created_by IS 'Who made it';

-- State of models: written by the snapshot worker under the model's lock.

CREATE TABLE retl.model_state (
  model bigint PRIMARY KEY REFERENCES retl.model ON DELETE CASCADE,
  seq bigint NOT NULL DEFAULT 0,
  shape int,
  key_types text[],
  row_count bigint NOT NULL DEFAULT 0,
  next_slot bigint NOT NULL DEFAULT 0,
  log_generation int NOT NULL DEFAULT 1,
  log_rows bigint NOT NULL DEFAULT 0,
  log_rows_kept bigint NOT NULL DEFAULT 0,
  snapshot_at timestamptz,
  definition text,
  writes text,
  read_at timestamptz,
  full_at timestamptz,
  full_seq bigint,
  watermark timestamptz
);
COMMENT ON TABLE retl.model_state IS 'Where a model''s checkpoint stands';
COMMENT ON COLUMN retl.model_state.model IS 'Model';
COMMENT ON COLUMN retl.model_state.seq IS 'Number of the last snapshot; 0: none yet';
COMMENT ON COLUMN retl.model_state.shape IS 'Shape of the last snapshot''s rows';
COMMENT ON COLUMN retl.model_state.key_types IS 'SQL types in which the checkpoint holds the key columns';
COMMENT ON COLUMN retl.model_state.row_count IS 'Rows in the checkpoint';
COMMENT ON COLUMN retl.model_state.next_slot IS 'Numbers of rows are below it; they tell duplicate keys in one pass, and those of rows that went are given again';
COMMENT ON COLUMN retl.model_state.log_generation IS 'Which log table is in use';
COMMENT ON COLUMN retl.model_state.log_rows IS 'Rows in the log';
COMMENT ON COLUMN retl.model_state.log_rows_kept IS 'Rows that were left when the log was last tidied';
COMMENT ON COLUMN retl.model_state.snapshot_at IS 'When the last snapshot was taken';
COMMENT ON COLUMN retl.model_state.definition IS 'Hash of what the model was and read then, but for the contents of tables';
COMMENT ON COLUMN retl.model_state.writes IS 'Hash of how often what it reads had been written then; NULL: not known';
COMMENT ON COLUMN retl.model_state.read_at IS 'When that was; of snapshots of some keys nothing is kept';
COMMENT ON COLUMN retl.model_state.full_at IS 'When the model was last read as a whole';
COMMENT ON COLUMN retl.model_state.full_seq IS 'Number of that snapshot';
COMMENT ON COLUMN retl.model_state.watermark IS 'Greatest value of the watermark that was read';

CREATE TABLE retl.shape (
  model bigint NOT NULL REFERENCES retl.model ON DELETE CASCADE,
  shape int NOT NULL,
  columns json NOT NULL,
  PRIMARY KEY (model, shape)
);
COMMENT ON TABLE retl.shape IS 'Names and types of the columns of stored rows';
COMMENT ON COLUMN retl.shape.model IS 'Model';
COMMENT ON COLUMN retl.shape.shape IS 'Number, as stored beside each row';
COMMENT ON COLUMN retl.shape.columns IS '[{"name", "type"}, ...] in the order of the stored values';

CREATE TABLE retl.snapshot (
  model bigint NOT NULL REFERENCES retl.model ON DELETE CASCADE,
  seq bigint NOT NULL,
  shape int NOT NULL,
  started_at timestamptz NOT NULL,
  finished_at timestamptz NOT NULL,
  rows bigint NOT NULL,
  added bigint NOT NULL,
  updated bigint NOT NULL,
  deleted bigint NOT NULL,
  set_aside bigint NOT NULL,
  set_aside_sample json,
  strategy text NOT NULL DEFAULT 'full',
  strategy_reason text,
  row_count bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (model, seq)
);
COMMENT ON TABLE retl.snapshot IS 'History of snapshots';
COMMENT ON COLUMN retl.snapshot.model IS 'Model';
COMMENT ON COLUMN retl.snapshot.seq IS 'Number within the model';
COMMENT ON COLUMN retl.snapshot.shape IS 'Shape of its rows';
COMMENT ON COLUMN retl.snapshot.started_at IS 'When the model''s lock was taken';
COMMENT ON COLUMN retl.snapshot.finished_at IS 'When it was about to commit';
COMMENT ON COLUMN retl.snapshot.rows IS 'Rows that were read';
COMMENT ON COLUMN retl.snapshot.added IS 'Keys that are new';
COMMENT ON COLUMN retl.snapshot.updated IS 'Keys whose row changed';
COMMENT ON COLUMN retl.snapshot.deleted IS 'Keys that are gone';
COMMENT ON COLUMN retl.snapshot.set_aside IS 'Rows with NULL, duplicate or too long keys';
COMMENT ON COLUMN retl.snapshot.set_aside_sample IS 'Up to five of them: {"key", "reason"}';
COMMENT ON COLUMN retl.snapshot.strategy IS 'What was read: full, all; watermark, rows from a watermark on; keys, those that were asked for';
COMMENT ON COLUMN retl.snapshot.strategy_reason IS 'Which rows, or why all';
COMMENT ON COLUMN retl.snapshot.row_count IS 'Rows of the checkpoint after it';

-- State of mappings: written by the snapshot worker while it holds the
-- mapping's lock.

CREATE TABLE retl.mapping_state (
  mapping bigint PRIMARY KEY REFERENCES retl.mapping ON DELETE CASCADE,
  cursor bigint,
  version int,
  reset boolean NOT NULL DEFAULT false,
  active_run bigint
);
COMMENT ON TABLE retl.mapping_state IS 'How far each mapping has planned';
COMMENT ON COLUMN retl.mapping_state.mapping IS 'Mapping';
COMMENT ON COLUMN retl.mapping_state.cursor IS 'Snapshot up to which changes are planned; NULL: never synced';
COMMENT ON COLUMN retl.mapping_state.version IS 'Version of the mapping that planned up to there; one that is older asks what is to be sent again';
COMMENT ON COLUMN retl.mapping_state.reset IS 'The next run sends every row as added, and what is to be deleted since the cursor';
COMMENT ON COLUMN retl.mapping_state.active_run IS 'The one active run, if any';

-- State of schedules: written by retl.tick() alone, beside the mapping's own
-- row, so that no session waits for a tick.

CREATE TABLE retl.schedule_state (
  mapping bigint PRIMARY KEY REFERENCES retl.mapping ON DELETE CASCADE,
  since timestamptz,
  due_at timestamptz,
  computed_at timestamptz,
  failed_since timestamptz,
  error_code text,
  error text,
  hint text
) WITH (fillfactor = 70);
COMMENT ON TABLE retl.schedule_state IS 'When each mapping is due next';
COMMENT ON COLUMN retl.schedule_state.mapping IS 'Mapping';
COMMENT ON COLUMN retl.schedule_state.since IS 'The mapping''s scheduled_since for which due_at holds; NULL: no tick has seen it yet';
COMMENT ON COLUMN retl.schedule_state.due_at IS 'When it is due next; infinity: never';
COMMENT ON COLUMN retl.schedule_state.computed_at IS 'When that was worked out';
COMMENT ON COLUMN retl.schedule_state.failed_since IS 'Since when ticks fail for it';
COMMENT ON COLUMN retl.schedule_state.error_code IS 'SQLSTATE of why';
COMMENT ON COLUMN retl.schedule_state.error IS 'Why';
COMMENT ON COLUMN retl.schedule_state.hint IS 'What to do';

CREATE TABLE retl.clock (
  name text COLLATE "C" PRIMARY KEY,
  at timestamptz
);
INSERT INTO retl.clock (name) VALUES ('tick');
COMMENT ON TABLE retl.clock IS 'What is done one at a time and now and then; whoever does it holds the row';
COMMENT ON COLUMN retl.clock.name IS 'tick: what schedules ask for';
COMMENT ON COLUMN retl.clock.at IS 'When it was done last; NULL: not yet here';

-- Requests are append-only and have no unique constraint but their number, so
-- that enqueueing never waits for another transaction.

CREATE TABLE retl.request (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  mapping bigint NOT NULL,
  model bigint NOT NULL,
  trigger text NOT NULL,
  kind text NOT NULL DEFAULT 'sync',
  arguments json,
  whole boolean NOT NULL DEFAULT false,
  invocation text,
  requested_by regrole NOT NULL,
  requested_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE retl.request IS 'Requests for a sync; a run takes the number of its request';
COMMENT ON COLUMN retl.request.id IS 'Number; also that of the run';
COMMENT ON COLUMN retl.request.mapping IS 'Mapping to sync';
COMMENT ON COLUMN retl.request.model IS 'Its model';
COMMENT ON COLUMN retl.request.trigger IS 'manual, model, schedule, retry, ...';
COMMENT ON COLUMN retl.request.kind IS 'sync; reset, baseline, resync, replay: what is to be done to the mapping''s state first';
COMMENT ON COLUMN retl.request.arguments IS 'resync: the keys; replay: the run';
COMMENT ON COLUMN retl.request.whole IS 'Whether the model is to be read as a whole, whatever could be saved';
COMMENT ON COLUMN retl.request.invocation IS 'What the caller calls its own run, dbt''s invocation_id for one';
COMMENT ON COLUMN retl.request.requested_by IS 'Who asked';
COMMENT ON COLUMN retl.request.requested_at IS 'When';

CREATE TABLE retl.run (
  id bigint PRIMARY KEY,
  mapping bigint NOT NULL REFERENCES retl.mapping ON DELETE CASCADE,
  mapping_version int NOT NULL,
  status text NOT NULL,
  trigger text NOT NULL,
  invocation text,
  served_by bigint,
  requested_at timestamptz NOT NULL,
  started_at timestamptz,
  finished_at timestamptz,
  from_seq bigint,
  to_seq bigint,
  phase int NOT NULL DEFAULT 0,
  position json,
  planned boolean NOT NULL DEFAULT false,
  stop_reason text,
  quiesced boolean NOT NULL DEFAULT false,
  release boolean NOT NULL DEFAULT false,
  reset boolean NOT NULL DEFAULT false,
  resend boolean NOT NULL DEFAULT false,
  open_batches bigint NOT NULL DEFAULT 0,
  open_bytes bigint NOT NULL DEFAULT 0,
  strategy text,
  strategy_reason text,
  snapshot_seconds float8,
  plan_seconds float8 NOT NULL DEFAULT 0,
  delivering_since timestamptz,
  delivery_seconds float8,
  added bigint NOT NULL DEFAULT 0,
  updated bigint NOT NULL DEFAULT 0,
  deleted bigint NOT NULL DEFAULT 0,
  unchanged bigint NOT NULL DEFAULT 0,
  set_aside bigint NOT NULL DEFAULT 0,
  sent bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  retried bigint NOT NULL DEFAULT 0,
  has_answers boolean NOT NULL DEFAULT true,
  has_attempts boolean NOT NULL DEFAULT true,
  has_bodies boolean NOT NULL DEFAULT true,
  has_batches boolean NOT NULL DEFAULT true,
  error_code text,
  error text,
  hint text
) WITH (fillfactor = 70);
CREATE INDEX run_mapping ON retl.run (mapping);
CREATE INDEX run_active ON retl.run (mapping) WHERE finished_at IS NULL;
CREATE INDEX run_served_by ON retl.run (served_by) WHERE served_by IS NOT NULL;
CREATE INDEX run_answers ON retl.run (finished_at) WHERE has_answers;
CREATE INDEX run_attempts ON retl.run (finished_at) WHERE has_attempts;
CREATE INDEX run_bodies ON retl.run (finished_at) WHERE has_bodies;
CREATE INDEX run_batches ON retl.run (finished_at) WHERE has_batches;
CREATE INDEX run_bare ON retl.run (finished_at) WHERE NOT has_batches;
COMMENT ON TABLE retl.run IS 'Runs: one sync of one mapping each';
COMMENT ON COLUMN retl.run.id IS 'Number, that of its request';
COMMENT ON COLUMN retl.run.mapping IS 'Mapping';
COMMENT ON COLUMN retl.run.mapping_version IS 'Version of the mapping that is sent';
COMMENT ON COLUMN retl.run.status IS 'planning, delivering, held; succeeded, partial, failed, canceled, skipped, replaced';
COMMENT ON COLUMN retl.run.trigger IS 'What caused it';
COMMENT ON COLUMN retl.run.invocation IS 'That of its request';
COMMENT ON COLUMN retl.run.served_by IS 'The run that did the work, where requests were merged, or that replaced this one';
COMMENT ON COLUMN retl.run.requested_at IS 'When asked for';
COMMENT ON COLUMN retl.run.started_at IS 'When its snapshot began';
COMMENT ON COLUMN retl.run.finished_at IS 'When it ended';
COMMENT ON COLUMN retl.run.from_seq IS 'The mapping''s cursor when planned; NULL: nothing sent yet';
COMMENT ON COLUMN retl.run.to_seq IS 'Snapshot up to which it plans';
COMMENT ON COLUMN retl.run.phase IS 'Part of the plan in work';
COMMENT ON COLUMN retl.run.position IS 'Last key planned in this phase';
COMMENT ON COLUMN retl.run.planned IS 'Whether all its batches exist';
COMMENT ON COLUMN retl.run.stop_reason IS 'Set: no new request; what is not delivered becomes an exception';
COMMENT ON COLUMN retl.run.quiesced IS 'Stopped, and none of its requests is under way any more: set by the delivery worker';
COMMENT ON COLUMN retl.run.release IS 'Brakes are off: a held run was released';
COMMENT ON COLUMN retl.run.reset IS 'It sends every row, as the mapping was reset';
COMMENT ON COLUMN retl.run.resend IS 'It sends rows again, as the mapping was edited';
COMMENT ON COLUMN retl.run.open_batches IS 'Batches without outcome';
COMMENT ON COLUMN retl.run.open_bytes IS 'Bytes of batches without outcome';
COMMENT ON COLUMN retl.run.strategy IS 'What its snapshot read of the model: full, watermark, keys; skipped: nothing, as nothing can have changed';
COMMENT ON COLUMN retl.run.strategy_reason IS 'Why, or which rows';
COMMENT ON COLUMN retl.run.snapshot_seconds IS 'Time of the snapshot';
COMMENT ON COLUMN retl.run.plan_seconds IS 'Time spent planning';
COMMENT ON COLUMN retl.run.delivering_since IS 'When its first batch became ready';
COMMENT ON COLUMN retl.run.delivery_seconds IS 'From its first batch to its last outcome';
COMMENT ON COLUMN retl.run.added IS 'Records planned as added';
COMMENT ON COLUMN retl.run.updated IS 'Records planned as updated';
COMMENT ON COLUMN retl.run.deleted IS 'Records planned as deleted';
COMMENT ON COLUMN retl.run.unchanged IS 'Rows that needed nothing';
COMMENT ON COLUMN retl.run.set_aside IS 'Rows of the snapshot without a usable key';
COMMENT ON COLUMN retl.run.sent IS 'Records that the destination accepted';
COMMENT ON COLUMN retl.run.failed IS 'Records that it refused, that were given up, or that could not be mapped';
COMMENT ON COLUMN retl.run.retried IS 'Attempts beyond the first, over all batches';
COMMENT ON COLUMN retl.run.has_answers IS 'False: answers were removed, as retl.answer_retention says';
COMMENT ON COLUMN retl.run.has_attempts IS 'False: attempts were removed, as retl.attempt_retention says';
COMMENT ON COLUMN retl.run.has_bodies IS 'False: bytes of requests were removed, as retl.body_retention says';
COMMENT ON COLUMN retl.run.has_batches IS 'False: requests were removed; the run goes next';
COMMENT ON COLUMN retl.run.error_code IS 'SQLSTATE of what failed the run';
COMMENT ON COLUMN retl.run.error IS 'What failed the run';
COMMENT ON COLUMN retl.run.hint IS 'What to do';

-- The ledger: one narrow row per HTTP request, beside its bytes. The planner
-- inserts, the delivery worker records outcomes in group commits.

CREATE TABLE retl.batch (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  run bigint NOT NULL REFERENCES retl.run ON DELETE CASCADE,
  mapping bigint NOT NULL,
  mapping_version int NOT NULL,
  destination bigint NOT NULL,
  stage smallint NOT NULL,
  records int NOT NULL,
  bytes int NOT NULL,
  idempotency_key text COLLATE "C" NOT NULL,
  status text NOT NULL DEFAULT 'pending',
  attempts int NOT NULL DEFAULT 0,
  next_attempt_at timestamptz,
  first_attempt_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  failed int NOT NULL DEFAULT 0,
  maybe boolean NOT NULL DEFAULT false,
  half_of bigint,
  http_status int,
  error text
) WITH (fillfactor = 70);
CREATE INDEX batch_half ON retl.batch (half_of) WHERE half_of IS NOT NULL;
CREATE INDEX batch_pending ON retl.batch (run, stage, id) WHERE status = 'pending';
CREATE INDEX batch_run ON retl.batch (run);
COMMENT ON TABLE retl.batch IS 'Ledger of requests to destinations, one row each';
COMMENT ON COLUMN retl.batch.id IS 'Number; requests of a run go out in this order';
COMMENT ON COLUMN retl.batch.run IS 'Run';
COMMENT ON COLUMN retl.batch.mapping IS 'Mapping';
COMMENT ON COLUMN retl.batch.mapping_version IS 'Version of the mapping that made it';
COMMENT ON COLUMN retl.batch.destination IS 'Destination';
COMMENT ON COLUMN retl.batch.stage IS '0: added and updated; 1: deleted, sent when stage 0 of the run is done';
COMMENT ON COLUMN retl.batch.records IS 'Records in it';
COMMENT ON COLUMN retl.batch.bytes IS 'Length of the body';
COMMENT ON COLUMN retl.batch.idempotency_key IS 'Same on every attempt';
COMMENT ON COLUMN retl.batch.status IS 'pending; delivered, partial, failed, canceled; split: replaced by other batches. What of a partial one is to be sent again is in other batches, too';
COMMENT ON COLUMN retl.batch.attempts IS 'Attempts on record';
COMMENT ON COLUMN retl.batch.next_attempt_at IS 'Not before this; NULL: at once';
COMMENT ON COLUMN retl.batch.first_attempt_at IS 'When it was first tried; NULL also where that sufficed';
COMMENT ON COLUMN retl.batch.created_at IS 'When planned';
COMMENT ON COLUMN retl.batch.finished_at IS 'When its outcome was recorded';
COMMENT ON COLUMN retl.batch.failed IS 'Records of it that failed';
COMMENT ON COLUMN retl.batch.maybe IS 'The outcome of an attempt is unknown: the destination may have acted on it';
COMMENT ON COLUMN retl.batch.half_of IS 'Of a half of a batch that was refused: that batch. The second half waits for the outcome of the first';
COMMENT ON COLUMN retl.batch.http_status IS 'Status of the last answer';
COMMENT ON COLUMN retl.batch.error IS 'What went wrong last';

CREATE TABLE retl.batch_body (
  batch bigint PRIMARY KEY REFERENCES retl.batch ON DELETE CASCADE,
  request json NOT NULL,
  body text NOT NULL,
  keys json NOT NULL,
  operations text NOT NULL
);
COMMENT ON TABLE retl.batch_body IS 'The bytes of requests, written once before the first attempt';
COMMENT ON COLUMN retl.batch_body.batch IS 'Batch';
COMMENT ON COLUMN retl.batch_body.request IS '{"method", "url", "headers"}; secrets and signatures are added at each attempt';
COMMENT ON COLUMN retl.batch_body.body IS 'Body';
COMMENT ON COLUMN retl.batch_body.keys IS 'Array of the records'' keys, in the order of the body';
COMMENT ON COLUMN retl.batch_body.operations IS 'One letter a record: a, u or d';

CREATE TABLE retl.attempt (
  batch bigint NOT NULL REFERENCES retl.batch ON DELETE CASCADE,
  attempt int NOT NULL,
  at timestamptz NOT NULL,
  seconds float8 NOT NULL,
  http_status int,
  bytes int NOT NULL,
  answer_bytes int NOT NULL,
  error text,
  answer text,
  PRIMARY KEY (batch, attempt)
);
COMMENT ON TABLE retl.attempt IS 'Every attempt at a request';
COMMENT ON COLUMN retl.attempt.batch IS 'Batch';
COMMENT ON COLUMN retl.attempt.attempt IS 'Number, from 1';
COMMENT ON COLUMN retl.attempt.at IS 'When dispatched';
COMMENT ON COLUMN retl.attempt.seconds IS 'How long it took';
COMMENT ON COLUMN retl.attempt.http_status IS 'Status; NULL: no answer';
COMMENT ON COLUMN retl.attempt.error IS 'What went wrong, if anything';
COMMENT ON COLUMN retl.attempt.answer IS 'Beginning of the answer''s body, secrets masked';
COMMENT ON COLUMN retl.attempt.bytes IS 'Length of the body as it was sent; 0: it was not sent';
COMMENT ON COLUMN retl.attempt.answer_bytes IS 'Length of the answer''s body, as much as was read';

CREATE TABLE retl.exception (
  mapping bigint NOT NULL REFERENCES retl.mapping ON DELETE CASCADE,
  key text COLLATE "C" NOT NULL,
  run bigint NOT NULL,
  batch bigint,
  operation text NOT NULL,
  reason text NOT NULL,
  http_status int,
  error text,
  maybe boolean NOT NULL,
  resolved boolean NOT NULL,
  acked json,
  acked_shape int,
  attempts int NOT NULL DEFAULT 1,
  failed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (mapping, key)
);
COMMENT ON TABLE retl.exception IS 'Records whose newest version their destination has not acknowledged';
COMMENT ON COLUMN retl.exception.mapping IS 'Mapping';
COMMENT ON COLUMN retl.exception.key IS 'Key: JSON scalar, or object by column for composite keys';
COMMENT ON COLUMN retl.exception.run IS 'Run that failed to deliver it last';
COMMENT ON COLUMN retl.exception.batch IS 'Batch it was in; NULL: it could not be mapped';
COMMENT ON COLUMN retl.exception.operation IS 'What was tried: added, updated, deleted';
COMMENT ON COLUMN retl.exception.reason IS 'rejected, gave_up, unmapped, canceled; resync, replay: asked for again';
COMMENT ON COLUMN retl.exception.http_status IS 'Status of the answer, if there was one';
COMMENT ON COLUMN retl.exception.error IS 'What the destination or the mapping said';
COMMENT ON COLUMN retl.exception.maybe IS 'The outcome is unknown: the destination may have it';
COMMENT ON COLUMN retl.exception.resolved IS 'Whether acked is filled in; done when the run ends';
COMMENT ON COLUMN retl.exception.acked IS 'The row as the destination last acknowledged it; NULL: never';
COMMENT ON COLUMN retl.exception.acked_shape IS 'Its shape';
COMMENT ON COLUMN retl.exception.attempts IS 'Runs that failed to deliver it';
COMMENT ON COLUMN retl.exception.failed_at IS 'When it failed last';

CREATE TABLE retl.sending (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  under_way boolean NOT NULL,
  unsure_to bigint,
  died_at timestamptz
);
COMMENT ON TABLE retl.sending IS 'Whether requests may have been sent of which nothing is on record';
COMMENT ON COLUMN retl.sending.one IS 'Always true: the table has one row at most';
COMMENT ON COLUMN retl.sending.under_way IS 'A delivery worker sends; or did, and died';
COMMENT ON COLUMN retl.sending.unsure_to IS 'Pending requests up to this number may have been sent by a worker that died, or by the database of which this is a copy';

COMMENT ON COLUMN retl.sending.died_at IS 'When it was noticed that a worker had died while it sent';

-- Rights of the workers.
GRANT USAGE ON SCHEMA retl TO retl_snapshot, retl_delivery;
GRANT SELECT ON retl.instance, retl.connector, retl.model, retl.destination, retl.mapping,
  retl.mapping_version TO retl_snapshot, retl_delivery;
GRANT SELECT, INSERT, UPDATE, DELETE ON retl.model_state, retl.shape, retl.snapshot, retl.mapping_state,
  retl.run, retl.batch, retl.batch_body, retl.attempt, retl.exception TO retl_snapshot;
GRANT SELECT, UPDATE, DELETE ON retl.request TO retl_snapshot;
GRANT USAGE ON SEQUENCE retl.batch_id_seq TO retl_snapshot, retl_delivery;
GRANT SELECT ON retl.sending TO retl_snapshot;
GRANT SELECT, INSERT, UPDATE ON retl.sending TO retl_delivery;
GRANT SELECT ON retl.secret TO retl_delivery;
GRANT SELECT, UPDATE ON retl.destination_state TO retl_delivery;
GRANT SELECT, UPDATE ON retl.run TO retl_delivery;
GRANT SELECT, INSERT, UPDATE ON retl.batch TO retl_delivery;
GRANT SELECT, INSERT ON retl.batch_body TO retl_delivery;
GRANT SELECT, UPDATE (active_run) ON retl.mapping_state TO retl_delivery;
GRANT SELECT, INSERT ON retl.attempt TO retl_delivery;
GRANT SELECT, INSERT, UPDATE ON retl.exception TO retl_delivery;

-- Bodies are 10 kB and more: pglz would cost more than all else in a run.
DO $compression$
BEGIN
  ALTER TABLE retl.batch_body ALTER COLUMN body SET COMPRESSION lz4, ALTER COLUMN keys SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  ALTER TABLE retl.batch_body ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN keys SET STORAGE EXTERNAL;
END
$compression$;

-- What a dump carries. One call a command: each updates the same catalog row.
DO $dump$
DECLARE
  item text[];
BEGIN
  FOREACH item SLICE 1 IN ARRAY ARRAY[
    ['instance', ''], ['connector', 'WHERE NOT built_in'], ['model', ''], ['destination', ''], ['destination_state', ''], ['mapping', ''],
    ['mapping_version', ''], ['model_state', ''], ['shape', ''], ['snapshot', ''], ['mapping_state', ''], ['schedule_state', ''],
    ['request', ''], ['run', ''], ['batch', ''], ['batch_body', ''], ['attempt', ''], ['exception', ''], ['sending', ''],
    ['model_id_seq', ''], ['destination_id_seq', ''], ['mapping_id_seq', ''], ['request_id_seq', ''],
    ['batch_id_seq', '']] LOOP
    PERFORM pg_catalog.pg_extension_config_dump(pg_catalog.format('retl.%I', item[1])::pg_catalog.regclass, item[2]);
  END LOOP;
END
$dump$;
