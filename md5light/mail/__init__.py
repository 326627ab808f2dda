"""Writes and delivers mails; does not import the queue."""
