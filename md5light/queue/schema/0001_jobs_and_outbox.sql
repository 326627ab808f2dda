-- A row is a job. A worker may take it when `due_at <= now`: this one condition finds new jobs,
-- retries, and the jobs of workers that died. `turn` and the outbox's key come with 0002.
--
-- status     due_at     token  attempts  meaning
-- queued     <= now     null   0         new: waits for a worker
-- queued     a time     null   >= 1      failed, or given back: waits for its next attempt
-- queued     null       null   any       set aside, its host is busy: comes back at `turn`
-- running    > now      set    >= 1      leased: its worker renews or settles it before due_at
-- running    <= now     set    >= 1      lost by its worker: the next claim takes it, or ends it
--                                        as worker_lost when attempts = max_attempts
-- done, failed, canceled
--            null       null   any       ended, at finished_at
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

-- How many jobs of a host run, which are set aside for it, and how many are unfinished in all.
create index jobs_unfinished on jobs (host, status, due_at, created_at) where finished_at is null;

-- The jobs that are old enough to be purged.
create index jobs_finished on jobs (finished_at) where finished_at is not null;

-- How many jobs a client submitted lately (`client` is stored only where that is limited), and
-- how many mails an address gets.
create index jobs_client on jobs (client, created_at) where client is not null;
create index jobs_recipient on jobs (lower(email), created_at) where email is not null;

-- A mail that is owed, written in the transaction that ends its job.
--
-- status     due_at     token  attempts  meaning
-- waiting    <= now     null   0         owed: waits for a worker
-- waiting    a time     null   >= 1      not delivered: waits for its next attempt
-- waiting    > now      set    >= 1      leased: its worker renews or settles it before due_at
-- waiting    <= now     set    >= 1      lost by its worker: the next claim takes it
-- sent       null       null   >= 1      the mail server or the Maildir has taken it
-- failed     null       null   any       given up; `md5light mail retry` makes it new
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

-- Proof that the database can be written: /readyz writes it.
create table probe (
    id bigint primary key,
    probed_at double precision not null
);

-- Counts for the metrics: how many events of one kind took no more than `within` seconds.
create table totals (
    event text not null,
    within double precision not null,
    shard bigint not null,
    events double precision not null,
    bytes double precision not null,
    seconds double precision not null,
    primary key (event, within, shard)
);

-- Running workers and their latest heartbeat.
create table workers (
    name text primary key,
    seen_at double precision not null
);
