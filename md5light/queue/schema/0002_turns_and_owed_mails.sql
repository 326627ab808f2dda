-- A job set aside keeps its turn: it comes back in the order in which it was due.
alter table jobs add column turn double precision;
update jobs set turn = created_at
where status = 'queued' and due_at is null and finished_at is null;
drop index jobs_unfinished;
create index jobs_unfinished on jobs (host, status, due_at, turn) where finished_at is null;

-- A mail is owed for a subject of any kind ('job' so far), not for a job alone.
alter table outbox rename to outbox_of_jobs;
drop index outbox_due;
create table outbox (
    kind text not null,
    subject text not null,
    recipient text not null,
    status text not null default 'waiting',
    due_at double precision,
    token text,
    worker text,
    attempts bigint not null default 0,
    created_at double precision not null,
    finished_at double precision,
    error_code text,
    error_message text,
    constraint outbox_subject primary key (kind, subject)
);
insert into outbox (kind, subject, recipient, status, due_at, token, worker, attempts, created_at,
    finished_at, error_code, error_message)
select 'job', job_id, recipient, status, due_at, token, worker, attempts, created_at,
    finished_at, error_code, error_message from outbox_of_jobs;
drop table outbox_of_jobs;
create index outbox_due on outbox (due_at) where due_at is not null;

-- When a worker saw the clock jump ahead by a day or more, for purges that must not believe it.
alter table workers add column jumped_at double precision;
