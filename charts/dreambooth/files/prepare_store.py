"""Makes the bundled MinIO's bucket, and a user for each key that job namespaces hold: a Helm hook, trainer's image.

A user may do everything with objects below its prefix and see names, and nothing else: pods of jobs never hold
root's key. USERS is JSON: access key → {secretKey, prefix}.
"""

import json
import os
import sys
import time

import urllib3
from minio import Minio
from minio.credentials import StaticProvider
from minio.error import MinioAdminException, MinioException
from minio.minioadmin import MinioAdmin

PATIENCE_SECONDS = 240


def policy(bucket: str, prefix: str) -> dict:
    """What the user of one prefix may do; an empty prefix is the whole bucket."""
    below = f"{prefix.strip('/')}/*" if prefix.strip("/") else "*"
    look = ("ListBucket", "GetBucketLocation", "ListBucketMultipartUploads")
    work = ("GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts")
    # On every bucket: who may not even look is told "access denied" of a bucket that does not exist, which misleads.
    on_bucket = {"Action": [f"s3:{a}" for a in look], "Resource": ["arn:aws:s3:::*"]}
    on_objects = {"Action": [f"s3:{a}" for a in work], "Resource": [f"arn:aws:s3:::{bucket}/{below}"]}
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **s} for s in (on_bucket, on_objects)]}


def prepare(endpoint: str, bucket: str, root: tuple[str, str], users: dict) -> None:
    """Bring bucket and users to what they should be. Raises MinIO's errors, or urllib3's when nobody answers."""
    client = Minio(endpoint, *root, secure=False)
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
    admin = MinioAdmin(endpoint=endpoint, credentials=StaticProvider(*root), secure=False)
    for access_key, user in users.items():
        admin.policy_add(access_key, policy=policy(bucket, user["prefix"]))
        admin.user_add(access_key, user["secretKey"])
        admin.policy_set(access_key, user=access_key)


def main() -> None:
    """Try until it is done; ends the process with a message when MinIO stays away."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    bucket, users = os.environ["BUCKET"], json.loads(os.environ["USERS"])
    while True:
        try:
            prepare(os.environ["ENDPOINT"], bucket, (os.environ["ROOT_USER"], os.environ["ROOT_PASSWORD"]), users)
            print(f"bucket {bucket} and {len(users)} users are there")
            return
        except (MinioException, MinioAdminException, urllib3.exceptions.HTTPError) as e:
            if time.monotonic() > deadline:
                sys.exit(f"bucket {bucket} cannot be prepared: {e}")
            print(f"waiting for the store: {e}")
            time.sleep(2)


if __name__ == "__main__":
    main()
