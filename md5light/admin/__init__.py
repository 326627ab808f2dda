"""The administration: what `md5light` does, each command a function of its name."""

from md5light.admin.batches import batches_list, batches_show
from md5light.admin.check import config_check, config_show
from md5light.admin.database import queue_compact, queue_copy, stats
from md5light.admin.hosts import hosts_list
from md5light.admin.jobs import jobs_cancel, jobs_list, jobs_purge, jobs_retry, jobs_show
from md5light.admin.mails import mail_export, mail_forget, mail_list, mail_retry, mail_test
from md5light.admin.tokens import token_add, token_list, token_remove

__all__ = [
    "batches_list",
    "batches_show",
    "config_check",
    "config_show",
    "hosts_list",
    "jobs_cancel",
    "jobs_list",
    "jobs_purge",
    "jobs_retry",
    "jobs_show",
    "mail_export",
    "mail_forget",
    "mail_list",
    "mail_retry",
    "mail_test",
    "queue_compact",
    "queue_copy",
    "stats",
    "token_add",
    "token_list",
    "token_remove",
]
