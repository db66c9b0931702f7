"""Ray, MLflow, PostgreSQL and an S3 store on this machine, to try all of it: ``mana stack``."""
