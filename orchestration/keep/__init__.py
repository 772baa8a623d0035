"""What outlives a process: stages, leases, records, files."""
