"""A real Apache Airflow 3 in an environment of its own."""

from tests.servers.airflow.server import DAGS, Airflow, AirflowServer, prepare_airflow

__all__ = ["DAGS", "Airflow", "AirflowServer", "prepare_airflow"]
