"""From the links in the email to volumes on disk."""
