-- A running job and an address that it may be connected to; it counts while the job has this token.
create table peers (
    address text not null,
    job_id text not null,
    token text not null,
    primary key (address, job_id)
);
create index peers_of_job on peers (job_id);
