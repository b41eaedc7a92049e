"""Where the school tells others what happened."""
