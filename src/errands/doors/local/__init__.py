"""The local run: everything an application needs to work, on one machine, with one command (`errands up`)."""
