"""boto3, as people use it: upload, create, wait, tag, list, invoke, delete. LUGGAGE NAME"""

import json
import sys
from pathlib import Path

import boto3

luggage, name = Path(sys.argv[1]), sys.argv[2]
bucket, role = f"models-{name}", "arn:aws:iam::123456789012:role/anybody"
s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
runtime = boto3.client("sagemaker-runtime")

location = {"LocationConstraint": s3.meta.region_name}
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=location)
s3.upload_file(str(luggage / "model.tar.gz"), bucket, "model.tar.gz")

model = sagemaker.create_model(
    ModelName=name,
    ExecutionRoleArn=role,
    PrimaryContainer={
        "Image": "763104351884.dkr.ecr.eu-west-3.amazonaws.com/tensorflow-inference:2.19-cpu",
        "ModelDataUrl": f"s3://{bucket}/model.tar.gz",
    },
)["ModelArn"]
sagemaker.create_endpoint_config(
    EndpointConfigName=name,
    ProductionVariants=[
        {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
    ],
)
endpoint = sagemaker.create_endpoint(
    EndpointName=name, EndpointConfigName=name, Tags=[{"Key": "team", "Value": "shoes"}]
)["EndpointArn"]
soon = {"Delay": 1, "MaxAttempts": 60}
sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=soon)

pages = sagemaker.get_paginator("list_endpoints").paginate(PaginationConfig={"PageSize": 1})
listed = [one["EndpointName"] for page in pages for one in page["Endpoints"]]
sagemaker.add_tags(ResourceArn=endpoint, Tags=[{"Key": "stage", "Value": "test"}])
sagemaker.delete_tags(ResourceArn=endpoint, TagKeys=["team"])
tags = [
    tag
    for page in sagemaker.get_paginator("list_tags").paginate(ResourceArn=endpoint)
    for tag in page["Tags"]
]
answer = runtime.invoke_endpoint(
    EndpointName=name,
    ContentType="application/json",
    Body=(luggage / "images.json").read_bytes(),
)

sagemaker.delete_endpoint(EndpointName=name)
sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=soon)
sagemaker.delete_endpoint_config(EndpointConfigName=name)
sagemaker.delete_model(ModelName=name)
left = sagemaker.list_models(NameContains=name)["Models"]

print(
    json.dumps(
        {
            "version": boto3.__version__,
            "arns": [model, endpoint],
            "listed": listed,
            "tags": tags,
            "variant": answer["InvokedProductionVariant"],
            "predictions": json.loads(answer["Body"].read())["predictions"],
            "left": left,
        }
    )
)
