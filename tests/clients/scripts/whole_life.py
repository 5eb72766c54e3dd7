"""boto3, as people use it: upload, create, wait, tag, list, invoke, watch, delete. LUGGAGE NAME"""

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3

luggage, name = Path(sys.argv[1]), sys.argv[2]
bucket, role = f"models-{name}", "arn:aws:iam::123456789012:role/anybody"
s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
runtime = boto3.client("sagemaker-runtime")

location = {"LocationConstraint": s3.meta.region_name}
s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=location)
s3.upload_file(str(luggage / "printing.tar.gz"), bucket, "model.tar.gz")

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
predictions = json.loads(answer["Body"].read())["predictions"]

cloudwatch, logs = boto3.client("cloudwatch"), boto3.client("logs")
dimensions = [
    {"Name": "EndpointName", "Value": name},
    {"Name": "VariantName", "Value": "AllTraffic"},
]
now, hour = datetime.now(UTC), timedelta(hours=1)
window = {"StartTime": now - hour, "EndTime": now + hour}
points = cloudwatch.get_metric_statistics(
    Namespace="AWS/SageMaker",
    MetricName="Invocations",
    Dimensions=dimensions,
    Period=60,
    Statistics=["Sum"],
    **window,
)["Datapoints"]
latency = {
    "Namespace": "AWS/SageMaker",
    "MetricName": "ModelLatency",
    "Dimensions": dimensions,
}
query = {"Id": "p99", "MetricStat": {"Metric": latency, "Period": 60, "Stat": "p99"}}
(data,) = cloudwatch.get_metric_data(MetricDataQueries=[query], **window)["MetricDataResults"]
pages = cloudwatch.get_paginator("list_metrics").paginate(Dimensions=dimensions)
metrics = [metric["MetricName"] for page in pages for metric in page["Metrics"]]
group = f"/aws/sagemaker/Endpoints/{name}"
(stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
printed = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]

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
            "predictions": predictions,
            "invocations": [point["Sum"] for point in points],
            "latencies": data["Values"],
            "metrics": metrics,
            "stream": stream["logStreamName"],
            "printed": [event["message"] for event in printed],
            "left": left,
        }
    )
)
