-- A batch is one list of many lines; its manifest has each line with its result.
--
-- status    sweep   meaning
-- taking    null    its lines are being stored: nobody sees it, and its jobs are parked
-- running   admit   complete; its parked jobs become queued, portion by portion
-- running   null    at work: it ends once none of its jobs is unfinished
-- running   cancel  was canceled: its unfinished jobs are being canceled
-- running   retry   was retried: its failed and canceled jobs are being parked
-- done      null    has ended, at finished_at
-- canceled  null    has ended because it was canceled
-- removed   null    discarded or purged: nobody sees it, and its rows are being removed
create table batches (
    id text primary key,
    name text,
    status text not null,
    sweep text,
    canceled bigint not null default 0,
    format text not null,
    header text,
    digests text not null,
    email text,
    client text not null,
    -- 1: the client's first list in a minute, which may go above submits_per_minute
    unlimited bigint not null,
    idempotency_key text,
    fingerprint text,
    lines bigint not null default 0,
    urls bigint not null default 0,
    -- the turn of its next job that becomes queued
    turn double precision,
    -- how often it has ended, and the result at that time (JSON)
    ends bigint not null default 0,
    result text,
    created_at double precision not null,
    -- when a mail became owed for it: at its submission and at each retry
    opened_at double precision not null,
    -- when its list went on, or it was opened: its end must be found after that
    touched_at double precision not null,
    finished_at double precision
);

create index batches_unfinished on batches (status) where finished_at is null;
create index batches_finished on batches (finished_at) where finished_at is not null;
create index batches_newest on batches (created_at);
create index batches_client on batches (client, created_at);
create index batches_recipient on batches (lower(email), opened_at) where email is not null;
create index batches_key on batches (client, idempotency_key) where idempotency_key is not null;

-- A line: what was sent, what is expected, and the job of its URL. One that could not be understood
-- has an error and no job. `sent` is null where it is the URL.
create table lines (
    batch_id text not null,
    position bigint not null,
    job_id text,
    sent text,
    name text,
    label text,
    size bigint,
    md5 text,
    sha1 text,
    sha256 text,
    sha512 text,
    error_code text,
    error_message text,
    primary key (batch_id, position)
);

-- A job of a batch has its place there. While it is parked it has no due_at and no turn:
--
-- status     due_at     token  attempts  meaning
-- parked     null       null   0         its batch is being taken or swept
alter table jobs add column batch_id text;
alter table jobs add column place bigint;

-- The size is there for their sum.
create index jobs_of_batch on jobs (batch_id, status, place, size) where batch_id is not null;

-- Jobs of batches are removed with their batch, and have limits of their own.
drop index jobs_finished;
create index jobs_finished on jobs (finished_at)
where finished_at is not null and batch_id is null;
create index jobs_single on jobs (created_at) where finished_at is null and batch_id is null;
