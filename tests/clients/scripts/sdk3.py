"""Version 3 of the SageMaker Python SDK, by its resources. LUGGAGE

The serverless configuration is made with boto3: EndpointConfig of sagemaker-core 2.27 writes
MemorySizeInMb, which botocore refuses before anything is sent.
"""

import json
import sys
from pathlib import Path

import boto3
from sagemaker.core.resources import Endpoint, EndpointConfig, Model
from sagemaker.core.shapes import ContainerDefinition, ProductionVariant

luggage, name = Path(sys.argv[1]), "by-resources"
region, bucket = "eu-west-3", "models-by-resources"
s3 = boto3.client("s3")
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
s3.upload_file(str(luggage / "model.tar.gz"), bucket, "model.tar.gz")

model = Model.create(
    model_name=name,
    primary_container=ContainerDefinition(
        image="763104351884.dkr.ecr.eu-west-3.amazonaws.com/tensorflow-inference:2.19-cpu",
        model_data_url=f"s3://{bucket}/model.tar.gz",
    ),
    execution_role_arn="arn:aws:iam::123456789012:role/anybody",
)
EndpointConfig.create(
    endpoint_config_name=f"{name}-realtime",
    production_variants=[
        ProductionVariant(
            variant_name="AllTraffic",
            model_name=name,
            instance_type="ml.m5.large",
            initial_instance_count=1,
        )
    ],
)
boto3.client("sagemaker").create_endpoint_config(
    EndpointConfigName=f"{name}-serverless",
    ProductionVariants=[
        {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 2},
        }
    ],
)
found: dict[str, object] = {}
for kind in ("realtime", "serverless"):
    config = EndpointConfig.get(f"{name}-{kind}")
    endpoint = Endpoint.create(
        endpoint_name=f"{name}-{kind}", endpoint_config_name=config.endpoint_config_name
    )
    if kind == "realtime":
        endpoint.wait_for_status("InService")
    else:
        endpoint.wait_for_status("InService", poll=1)
    answer = endpoint.invoke(
        body=(luggage / "images.json").read_bytes(), content_type="application/json"
    )
    found[kind] = json.loads(answer.body.read())["predictions"]
    endpoint.delete()
    endpoint.wait_for_delete(poll=1)
    config.delete()
model.delete()
found["left"] = [one.endpoint_name for one in Endpoint.get_all(name_contains=name)]

print()
print(json.dumps(found))
