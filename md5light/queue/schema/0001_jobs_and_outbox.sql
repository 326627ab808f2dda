-- A row is a job. `due_at` is the one condition for work: new jobs, retries and lost claims are all `due_at <= now`.
create table jobs (
    id text primary key,
    url text not null,
    host text not null,
    email text,
    client text,
    status text not null,
    due_at double precision,
    token text,
    worker text,
    attempts bigint not null default 0,
    max_attempts bigint not null,
    created_at double precision not null,
    started_at double precision,
    finished_at double precision,
    bytes_done bigint not null default 0,
    bytes_total bigint,
    md5 text,
    size bigint,
    final_url text,
    content_type text,
    etag text,
    last_modified text,
    error_code text,
    error_message text
);

-- The next job to claim.
create index jobs_due on jobs (due_at) where due_at is not null;

-- How many of a host run, which of a host wait for it (due_at is null), and how many are unfinished in all.
create index jobs_unfinished on jobs (host, status, due_at, created_at) where finished_at is null;

-- What is old enough to be removed.
create index jobs_finished on jobs (finished_at) where finished_at is not null;

-- How many a client submitted lately (it is noted only where that is limited), and how many mails an address gets.
create index jobs_client on jobs (client, created_at) where client is not null;
create index jobs_recipient on jobs (lower(email), created_at) where email is not null;

-- A mail that is owed, written in the transaction that finishes its job.
create table outbox (
    job_id text primary key references jobs (id) on delete cascade,
    recipient text not null,
    status text not null default 'waiting',
    due_at double precision,
    token text,
    worker text,
    attempts bigint not null default 0,
    created_at double precision not null,
    finished_at double precision,
    error_code text,
    error_message text
);

create index outbox_due on outbox (due_at) where due_at is not null;

-- Proof that the database can be written, renewed by the server's readiness check.
create table probe (
    id bigint primary key,
    probed_at double precision not null
);

-- What has happened so far, for the metrics: events of one kind, of which each took no more than `within` seconds.
create table totals (
    event text not null,
    within double precision not null,
    shard bigint not null,
    events double precision not null,
    bytes double precision not null,
    seconds double precision not null,
    primary key (event, within, shard)
);

-- Workers that run, by their latest sign of life.
create table workers (
    name text primary key,
    seen_at double precision not null
);
