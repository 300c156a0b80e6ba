"""An engine on the far side of a process boundary: its protocol, both its ends, and the processes that run it."""
