"""The servers the system needs, and nothing of the system itself: this package imports none of ours."""
