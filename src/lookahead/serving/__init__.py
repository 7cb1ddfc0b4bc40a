"""The encoder behind MLflow's model registry and server: for programs that ask for pictures over HTTP."""
