"""The service over HTTP: a FastAPI application around api.service."""
