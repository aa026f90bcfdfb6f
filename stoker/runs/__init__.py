"""What turns a run request into a task: the gateway does for its callers, the jobs for flows and agents."""
