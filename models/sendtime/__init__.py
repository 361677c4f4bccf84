"""Send time: the hour in which a message goes, chosen from what is known of when its recipient is active."""
