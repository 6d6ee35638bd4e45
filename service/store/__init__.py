"""Storage: tables, jobs, artifacts. Shared floor of service and worker; no fastapi, no torch."""
