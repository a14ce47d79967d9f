"""When stages run: the Prefect flow, its server and worker."""
