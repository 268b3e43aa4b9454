"""Statistics of runs, on numpy arrays alone: no file, no task, no agent."""
