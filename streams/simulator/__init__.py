"""Mailbox providers that judge a sender as the real ones are said to, in virtual time."""
