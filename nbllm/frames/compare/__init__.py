"""Models side by side: a tidy frame of answers, and what is computed and shown of one."""
