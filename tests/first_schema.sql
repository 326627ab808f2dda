-- The first version of the schema, as it was, with a job in each state.

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

create index jobs_due on jobs (due_at) where due_at is not null;

create index jobs_unfinished on jobs (host, status, due_at, created_at) where finished_at is null;

create index jobs_finished on jobs (finished_at) where finished_at is not null;

create index jobs_client on jobs (client, created_at) where client is not null;
create index jobs_recipient on jobs (lower(email), created_at) where email is not null;

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

create table probe (
    id bigint primary key,
    probed_at double precision not null
);

create table totals (
    event text not null,
    within double precision not null,
    shard bigint not null,
    events double precision not null,
    bytes double precision not null,
    seconds double precision not null,
    primary key (event, within, shard)
);

create table workers (
    name text primary key,
    seen_at double precision not null
);

create table schema_version (version bigint not null);
insert into schema_version values (1);

insert into jobs (id, url, host, email, status, due_at, token, worker, attempts, max_attempts,
    created_at, finished_at)
values
    ('0e4fac17-f367-4807-8c28-000000000000', 'http://new/a', 'new', null, 'queued', 900, null, null,
        0, 5, 900, null),
    ('0e4fac17-f367-4807-8c28-000000000001', 'http://other/a', 'other', null, 'queued', 2000, null,
        null,
        2, 5, 800, null),
    ('0e4fac17-f367-4807-8c28-000000000002', 'http://busy/a', 'busy', null, 'queued', null, null,
        null,
        0, 5, 500, null),
    ('0e4fac17-f367-4807-8c28-000000000003', 'http://busy/a', 'busy', null, 'queued', null, null,
        null,
        0, 5, 600, null),
    ('0e4fac17-f367-4807-8c28-000000000004', 'http://busy/a', 'busy', null, 'running', 1050,
        'token',
        'w0',
        1, 5, 400, null),
    ('0e4fac17-f367-4807-8c28-000000000005', 'http://other/a', 'other', 'ann@example.com', 'done',
        null, null, null,
        1, 5, 300, 350),
    ('0e4fac17-f367-4807-8c28-000000000006', 'http://other/a', 'other', 'ann@example.com',
        'failed', null, null, null,
        5, 5, 300, 360),
    ('0e4fac17-f367-4807-8c28-000000000007', 'http://other/a', 'other', null, 'canceled', null,
        null, null,
        0, 5, 300, 370);

insert into outbox (job_id, recipient, status, due_at, attempts, created_at, finished_at)
values
    ('0e4fac17-f367-4807-8c28-000000000005', 'ann@example.com', 'sent', null, 1, 350, 351),
    ('0e4fac17-f367-4807-8c28-000000000006', 'ann@example.com', 'waiting', 950, 2, 360, null);

insert into totals (event, within, shard, events, bytes, seconds) values ('done', 1, 0, 7, 70, 3);
