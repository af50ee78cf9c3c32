"""Real S3 servers: SeaweedFS (a wheel) and MinIO (built once), and moto's stand-in."""

from tests.servers.s3.servers import (
    MINIO,
    SEAWEEDFS,
    S3Server,
    start_minio,
    start_moto,
    start_seaweedfs,
)

__all__ = ["MINIO", "SEAWEEDFS", "S3Server", "start_minio", "start_moto", "start_seaweedfs"]
