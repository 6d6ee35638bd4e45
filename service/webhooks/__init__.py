"""Events told to addresses of somebody else."""
