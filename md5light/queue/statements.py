"""What is asked of the table of jobs, in words that mean the same to every engine (see `database`)."""

SUBMIT = """
    insert into jobs (id, url, host, email, client, status, due_at, max_attempts, created_at)
    values (:id, :url, :host, :email, :client, 'queued', :now, :max_attempts, :now)
"""

# The oldest of the latest `limit` submissions within the window: when it leaves, there is room for another.

CLIENT_LIMIT = """
    select created_at from jobs where client = :client and created_at > :since
    order by created_at desc limit 1 offset :limit - 1
"""

RECIPIENT_LIMIT = """
    select created_at from jobs where lower(email) = lower(:email) and email is not null and created_at > :since
    order by created_at desc limit 1 offset :limit - 1
"""

JOBS = """
    select jobs.*, coalesce(outbox.status, case when jobs.email is null or jobs.finished_at is not null
        then 'none' else 'waiting' end) as mail
    from jobs left join outbox on outbox.job_id = jobs.id
"""

GET = f"{JOBS} where jobs.id = :id"

# The ids come first, so that nothing but dates and ids is sorted.

NEWEST = "select id from jobs order by created_at desc, id limit :limit"

NEWEST_OF_STATUS = (
    "select id from jobs where status = :status order by created_at desc, id limit :limit"
)

LIST = f"{JOBS} where jobs.id in ({{ids}}) order by jobs.created_at desc, jobs.id"

COUNT_UNFINISHED = """
    select count(*) as unfinished from (select 1 from jobs where finished_at is null limit :limit) as counted
"""

IS_DUE = "select 1 from jobs where due_at <= :now limit 1"

DUE = """
    select id, host, status, attempts, max_attempts from jobs where due_at <= :now
    order by due_at limit :limit for update skip locked
"""

COUNT_RUNNING = """
    select count(*) as running from jobs where host = :host and status = 'running' and finished_at is null
"""

CLAIM = """
    update jobs set status = 'running', token = :token, worker = :worker, due_at = :lease_end,
        attempts = attempts + 1, started_at = :now, bytes_done = 0, bytes_total = null
    where id in ({ids}) returning *
"""

SET_ASIDE = """
    update jobs set due_at = null where id in (
        select id from jobs where host = :host and status = 'queued' and due_at <= :now and finished_at is null
        limit 1000 for update skip locked)
"""

ADMIT = """
    update jobs set due_at = created_at where id in (
        select id from jobs where host = :host and status = 'queued' and due_at is null and finished_at is null
        order by created_at limit (
            select case when count(*) < :slots then :slots - count(*) else 0 end
            from jobs where host = :host and status = 'running' and finished_at is null))
"""

# Every write of a worker goes through one of these two: they are the fence. A lease that was renewed a moment ago
# stays as it is: progress alone touches no index, so that PostgreSQL writes it in place (a heap-only tuple).

RENEW = """
    update jobs set due_at = case when due_at < :renewed_long_ago then :lease_end else due_at end,
        bytes_done = :bytes_done, bytes_total = :bytes_total
    where id = :id and token = :token
"""

SETTLE = """
    update jobs set status = :status, due_at = :due_at, finished_at = :finished_at, attempts = attempts - :untried,
        bytes_done = coalesce(:size, bytes_done), bytes_total = coalesce(:size, bytes_total),
        md5 = :md5, size = :size, final_url = :final_url, content_type = :content_type, etag = :etag,
        last_modified = :last_modified, error_code = :error_code, error_message = :error_message,
        token = null, worker = null
    where id = :id and token = :token
"""

CANCEL = """
    update jobs set status = 'canceled', due_at = null, finished_at = :now, token = null, worker = null
    where id = :id and finished_at is null
"""

RETRY = """
    update jobs set status = 'queued', due_at = :now, attempts = 0, started_at = null, finished_at = null,
        bytes_done = 0, bytes_total = null, error_code = null, error_message = null
    where id = :id and status in ('failed', 'canceled')
"""

# A lease that runs lies within its length from now: so much of the index by due_at is looked through.

FREE = """
    update jobs set due_at = :now, token = null, worker = null
    where due_at > :now and due_at <= :now + :lease and worker = :worker
"""

# No end of a back-off or of a lease lies further ahead than this, unless the clock was set back.

PULL_IN = """
    update {table} set due_at = :now + case when token is not null then :lease when attempts = 0 then 0 else :wait end
    where due_at > :now + case when token is not null then :lease when attempts = 0 then 0 else :wait end
        and due_at > :now
"""

PURGE = """
    delete from jobs where id in (
        select id from jobs where finished_at < :before
            and not exists (select 1 from outbox where job_id = jobs.id and due_at is not null)
        order by finished_at limit :rows)
"""

PROBE = """
    insert into probe (id, probed_at) values (1, :now) on conflict (id) do update set probed_at = excluded.probed_at
"""
