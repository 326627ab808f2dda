-- Digests beside MD5: the names of those to be computed, separated by spaces, and their values.
alter table jobs add column digests text not null default '';
alter table jobs add column sha1 text;
alter table jobs add column sha256 text;
alter table jobs add column sha512 text;

-- What is expected of the file; null: nothing.
alter table jobs add column expected_size bigint;
alter table jobs add column expected_md5 text;
alter table jobs add column expected_sha1 text;
alter table jobs add column expected_sha256 text;
alter table jobs add column expected_sha512 text;
