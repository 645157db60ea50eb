-- The objects of the platform. Times are milliseconds since 1970 (`*_ms`), written by the application from one
-- clock, except in the work queue, which lives by the database's clock.
--
-- Expand-only: later migrations add; nothing is renamed or dropped while a release that uses it may run.

CREATE TABLE installation (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    id          uuid NOT NULL,
    created_ms  bigint NOT NULL
);

CREATE TABLE team (
    id          uuid PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    created_ms  bigint NOT NULL
);

CREATE TABLE token (
    id           uuid PRIMARY KEY,
    team_id      uuid NOT NULL REFERENCES team,
    name         text NOT NULL,
    -- SHA-256 of the token: it has 256 bits of randomness, so a slow hash would add nothing.
    digest       bytea NOT NULL UNIQUE,
    -- `owner`, or `deploy` with the project that it is for.
    scope        text NOT NULL CHECK (scope IN ('owner', 'deploy')),
    project_id   uuid,
    created_ms   bigint NOT NULL,
    last_used_ms bigint,
    revoked_ms   bigint,
    CHECK ((scope = 'deploy') = (project_id IS NOT NULL))
);

-- A data key per project, sealed by a master key from a file; every secret of the project is sealed by the data key.
CREATE TABLE data_key (
    id            uuid PRIMARY KEY,
    master_key_id text NOT NULL,
    sealed        bytea NOT NULL,
    created_ms    bigint NOT NULL
);

CREATE TABLE project (
    id          uuid PRIMARY KEY,
    team_id     uuid NOT NULL REFERENCES team,
    name        text NOT NULL,
    data_key_id uuid NOT NULL REFERENCES data_key,
    version     bigint NOT NULL DEFAULT 1,
    created_ms  bigint NOT NULL,
    deleted_ms  bigint
);
CREATE UNIQUE INDEX project_name ON project (team_id, name) WHERE deleted_ms IS NULL;
ALTER TABLE token ADD FOREIGN KEY (project_id) REFERENCES project;

CREATE TABLE environment (
    id          uuid PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES project,
    name        text NOT NULL,
    -- Number in the firewall; never used again while the installation lives.
    mark        integer GENERATED ALWAYS AS IDENTITY UNIQUE,
    -- The bridge that its replicas are on, chosen with headroom when it is created (Docker).
    bridge      integer NOT NULL DEFAULT 0,
    version     bigint NOT NULL DEFAULT 1,
    created_ms  bigint NOT NULL,
    deleted_ms  bigint
);
CREATE UNIQUE INDEX environment_name ON environment (project_id, name) WHERE deleted_ms IS NULL;

CREATE TABLE service (
    id          uuid PRIMARY KEY,
    project_id  uuid NOT NULL REFERENCES project,
    name        text NOT NULL,
    version     bigint NOT NULL DEFAULT 1,
    created_ms  bigint NOT NULL,
    deleted_ms  bigint
);
CREATE UNIQUE INDEX service_name ON service (project_id, name) WHERE deleted_ms IS NULL;

-- A service in an environment. Settings are JSON of ferrovia_core::settings::Settings.
CREATE TABLE instance (
    id                     uuid PRIMARY KEY,
    service_id             uuid NOT NULL REFERENCES service,
    environment_id         uuid NOT NULL REFERENCES environment,
    settings               jsonb NOT NULL,
    virtual_address        inet NOT NULL UNIQUE,
    next_deployment_number integer NOT NULL DEFAULT 1,
    version                bigint NOT NULL DEFAULT 1,
    created_ms             bigint NOT NULL,
    deleted_ms             bigint
);
CREATE UNIQUE INDEX instance_place ON instance (service_id, environment_id) WHERE deleted_ms IS NULL;

-- Intent: the only thing that says what should run.
CREATE TABLE intent (
    instance_id       uuid PRIMARY KEY REFERENCES instance,
    target_deployment uuid,
    replicas          integer NOT NULL DEFAULT 1 CHECK (replicas BETWEEN 0 AND 100),
    restart_nonce     bigint NOT NULL DEFAULT 0,
    asleep            boolean NOT NULL DEFAULT false,
    held              boolean NOT NULL DEFAULT false,
    generation        bigint NOT NULL DEFAULT 1
);

-- Host names are given once and never move to another instance, also when that is deleted.
CREATE TABLE domain (
    id            uuid PRIMARY KEY,
    instance_id   uuid NOT NULL REFERENCES instance,
    host          text NOT NULL UNIQUE,
    kind          text NOT NULL CHECK (kind IN ('generated', 'deployment', 'custom')),
    deployment_id uuid,
    created_ms    bigint NOT NULL,
    deleted_ms    bigint
);

-- A value is sealed with the project's data key. `shared` variables belong to the environment, others to an instance.
CREATE TABLE variable (
    environment_id uuid NOT NULL REFERENCES environment,
    instance_id    uuid REFERENCES instance,
    key            text NOT NULL,
    data_key_id    uuid NOT NULL REFERENCES data_key,
    sealed         bytea NOT NULL,
    -- Never readable again through any interface.
    write_only     boolean NOT NULL DEFAULT false,
    -- Marked as not secret: may be used as a build argument.
    public         boolean NOT NULL DEFAULT false,
    updated_ms     bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (environment_id, instance_id, key)
);

CREATE TABLE volume (
    id          uuid PRIMARY KEY,
    instance_id uuid NOT NULL REFERENCES instance,
    name        text NOT NULL,
    target      text NOT NULL,
    created_ms  bigint NOT NULL,
    deleted_ms  bigint
);

-- A source tree as its sorted manifest; its blobs lie in the blob store, by content.
CREATE TABLE source_tree (
    project_id  uuid NOT NULL REFERENCES project,
    digest      text NOT NULL,
    manifest    jsonb NOT NULL,
    size_bytes  bigint NOT NULL,
    created_ms  bigint NOT NULL,
    used_ms     bigint NOT NULL,
    PRIMARY KEY (project_id, digest)
);

-- An image in the platform's registry. Clean-up condemns it in a transaction that proves that nothing refers to it;
-- setting a target takes the row FOR SHARE and refuses a condemned one; deletion follows the commit.
CREATE TABLE image (
    repository   text NOT NULL,
    digest       text NOT NULL,
    size_bytes   bigint NOT NULL,
    config       jsonb NOT NULL,
    created_ms   bigint NOT NULL,
    condemned_ms bigint,
    PRIMARY KEY (repository, digest)
);

CREATE TABLE build (
    id               uuid PRIMARY KEY,
    project_id       uuid NOT NULL REFERENCES project,
    service_id       uuid NOT NULL REFERENCES service,
    -- A source tree, or a reference to an image elsewhere.
    tree_digest      text,
    image_reference  text,
    builder          text,
    plan             jsonb,
    -- Project, tree, plan, bases, architecture, HMAC of variables, builder version: equal keys, equal images.
    image_key        text,
    settings         jsonb NOT NULL,
    -- Sealed JSON of the variables that the build sees.
    data_key_id      uuid NOT NULL REFERENCES data_key,
    sealed_variables bytea NOT NULL,
    rebuild          boolean NOT NULL DEFAULT false,
    outcome          text NOT NULL CHECK (outcome IN ('queued', 'building', 'succeeded', 'failed', 'cancelled')),
    report           jsonb,
    warnings         jsonb NOT NULL DEFAULT '[]',
    cancel_requested boolean NOT NULL DEFAULT false,
    repository       text,
    digest           text,
    reused           boolean NOT NULL DEFAULT false,
    created_ms       bigint NOT NULL,
    started_ms       bigint,
    finished_ms      bigint,
    FOREIGN KEY (repository, digest) REFERENCES image,
    CHECK ((tree_digest IS NULL) <> (image_reference IS NULL))
);
CREATE INDEX build_by_image_key ON build (project_id, image_key, finished_ms) WHERE outcome = 'succeeded';

CREATE TABLE deployment (
    id               uuid PRIMARY KEY,
    instance_id      uuid NOT NULL REFERENCES instance,
    number           integer NOT NULL,
    build_id         uuid NOT NULL REFERENCES build,
    settings         jsonb NOT NULL,
    data_key_id      uuid NOT NULL REFERENCES data_key,
    -- Sealed JSON of the resolved variables: the snapshot.
    sealed_variables bytea NOT NULL,
    -- Commit, branch, author, message, when known.
    source           jsonb NOT NULL DEFAULT '{}',
    outcome          text NOT NULL CHECK (outcome IN ('queued', 'building', 'deploying', 'succeeded', 'failed', 'cancelled', 'superseded')),
    report           jsonb,
    warnings         jsonb NOT NULL DEFAULT '[]',
    cancel_requested boolean NOT NULL DEFAULT false,
    -- Tries of the platform to start it, before it succeeded.
    start_tries      integer NOT NULL DEFAULT 0,
    durations        jsonb NOT NULL DEFAULT '{}',
    created_ms       bigint NOT NULL,
    deploy_started_ms bigint,
    finished_ms      bigint,
    UNIQUE (instance_id, number)
);
CREATE INDEX deployment_by_build ON deployment (build_id);
ALTER TABLE intent ADD FOREIGN KEY (target_deployment) REFERENCES deployment;

-- A replica from its allocation until its address may be used again.
CREATE TABLE replica (
    id                uuid PRIMARY KEY,
    deployment_id     uuid NOT NULL REFERENCES deployment,
    instance_id       uuid NOT NULL REFERENCES instance,
    ordinal           integer NOT NULL,
    address           inet NOT NULL UNIQUE,
    restart_nonce     bigint NOT NULL,
    -- admitting: its address enters the tables; starting; serving: in the routes; draining: out of the routes;
    -- stopping: nothing uses it; leaving: its container is gone, its address leaves the tables. Then the row goes.
    phase             text NOT NULL CHECK (phase IN ('admitting', 'starting', 'serving', 'draining', 'stopping', 'leaving')),
    -- Revisions of the tables in which the last change of phase took effect: what readers must acknowledge.
    phase_revision    bigint NOT NULL,
    phase_ms          bigint NOT NULL,
    started_at_ms     bigint,
    healthy_since_ms  bigint,
    -- Tries of the platform to start it before its deployment succeeded.
    tries             integer NOT NULL DEFAULT 0,
    next_try_ms       bigint
);
CREATE INDEX replica_by_instance ON replica (instance_id);

-- The head of the tables of edge and node: one writer, serialised by this row's lock, so that the order of revisions
-- is the order of commits.
CREATE TABLE table_head (
    single   boolean PRIMARY KEY DEFAULT true CHECK (single),
    epoch    bigint NOT NULL,
    revision bigint NOT NULL,
    -- Tombstones up to this revision are gone: a reader that holds less needs a snapshot.
    pruned   bigint NOT NULL DEFAULT 0
);
INSERT INTO table_head (epoch, revision) VALUES (1, 0);

-- The rows of the tables, and tombstones of rows that are gone until every reader has acknowledged them.
CREATE TABLE table_row (
    audience    text NOT NULL CHECK (audience IN ('edge', 'node')),
    key         text NOT NULL,
    value       jsonb,
    revision    bigint NOT NULL,
    -- Whose row it is: a change recomputes the rows of one instance only.
    instance_id uuid NOT NULL,
    PRIMARY KEY (audience, key)
);
CREATE INDEX table_row_by_revision ON table_row (audience, revision);
CREATE INDEX table_row_by_instance ON table_row (instance_id);

-- Every reader of the tables that was ever heard of, and what it durably holds.
CREATE TABLE table_reader (
    name          text PRIMARY KEY,
    audience      text NOT NULL CHECK (audience IN ('edge', 'node')),
    epoch         bigint NOT NULL,
    revision      bigint NOT NULL,
    connected     boolean NOT NULL,
    last_seen_ms  bigint NOT NULL
);

-- The work queue. A row is work that is to be done; it goes when it is done. Keys coalesce: `wanted_seq` grows with
-- every enqueue, and what was claimed at a smaller one is due again. While a row is leased its `due_at` is `infinity`,
-- so that an enqueue during the run sets when it is due again.
CREATE TABLE work_item (
    kind        text NOT NULL,
    key         text NOT NULL,
    class       text NOT NULL,
    team_id     uuid,
    wanted_seq  bigint NOT NULL DEFAULT 1,
    done_seq    bigint NOT NULL DEFAULT 0,
    due_at      timestamptz NOT NULL DEFAULT now(),
    priority    integer NOT NULL DEFAULT 0,
    -- Failures in a row, runs that were killed included.
    attempts    integer NOT NULL DEFAULT 0,
    last_error  text,
    lease_owner text,
    lease_epoch bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    PRIMARY KEY (kind, key),
    CHECK ((lease_owner IS NULL) = (lease_until IS NULL))
);
CREATE INDEX work_item_due ON work_item (class, due_at);
-- An epoch is never given twice, also not to a row that was done, went, and came again.
CREATE SEQUENCE work_lease_epoch;

-- When a team had its last turn in a class: who waited longest is next. The platform's own work is the nil team's.
CREATE TABLE work_turn (
    class      text NOT NULL,
    team_id    uuid NOT NULL,
    claimed_at timestamptz NOT NULL,
    PRIMARY KEY (class, team_id)
);

CREATE TABLE audit (
    id         uuid PRIMARY KEY,
    team_id    uuid NOT NULL REFERENCES team,
    actor      text NOT NULL,
    action     text NOT NULL,
    target     text NOT NULL,
    request_id text NOT NULL,
    at_ms      bigint NOT NULL
);

-- What was answered to a POST with an Idempotency-Key, so that a repeat gets the same answer.
CREATE TABLE idempotency (
    token_id       uuid NOT NULL,
    key            text NOT NULL,
    request_digest bytea NOT NULL,
    status         integer,
    body           jsonb,
    created_ms     bigint NOT NULL,
    PRIMARY KEY (token_id, key)
);
