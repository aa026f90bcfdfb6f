"""`stoker top`: a live view of machines, GPUs, instances, tasks and the queue."""
