-- The addresses that are old enough to be removed.
create index jobs_addressed on jobs (finished_at)
where email is not null and finished_at is not null;
create index outbox_addressed on outbox (finished_at)
where recipient <> '' and finished_at is not null;
