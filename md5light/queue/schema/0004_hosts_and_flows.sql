-- A job's turn is its place among those that wait, kept while it runs or is set aside, so that it
-- comes back in the same order: a time, or from 1e12 on a number in the order of turns, which
-- due_at holds as well then. Null: it waits for its next attempt, or has ended.
create index jobs_flow on jobs (client, turn)
where status = 'queued' and client is not null and turn is not null;

-- How many unfinished jobs a client has.
create index jobs_of_client on jobs (client) where finished_at is null and client is not null;

-- How often the host refused a job, or asked for rest, without counting an attempt; and when last.
alter table jobs add column refusals bigint not null default 0;
alter table jobs add column refused_at double precision;

-- A host that has asked for rest or could not be reached, until an hour after that.
create table hosts (
    host text primary key,
    rest_until double precision not null,
    rests bigint not null,
    pause double precision not null,
    most bigint not null,
    room bigint not null,
    gap double precision not null,
    good_answers bigint not null,
    good_at double precision,
    word_at double precision not null,
    given_up_at double precision,
    error_code text not null,
    error_message text not null
);
