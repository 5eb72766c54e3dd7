"""Version 3 of the SageMaker Python SDK, as its documents have it: ModelBuilder. LUGGAGE

A TensorFlow model is deployed to an instance, waited for as the SDK waits, and deleted; then
without servers, where a shorter interval will do.
"""

import json
import sys
from pathlib import Path

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.inference_config import ServerlessInferenceConfig
from sagemaker.core.resources import EndpointConfig
from sagemaker.serve import ModelBuilder

luggage, name = Path(sys.argv[1]), "built"
images = (luggage / "images.json").read_bytes()
session = Session()
bucket, region = session.default_bucket(), session.boto_region_name
uploaded = session.upload_data(str(luggage / "model.tar.gz"), bucket=bucket, key_prefix=name)
builder = ModelBuilder(
    image_uri=image_uris.retrieve(
        "tensorflow", region, version="2.19", instance_type="ml.m5.large", image_scope="inference"
    ),
    s3_model_data_url=uploaded,
    role_arn="arn:aws:iam::123456789012:role/anybody",
    instance_type="ml.m5.large",
    sagemaker_session=session,
    model_path=str(Path.cwd() / "built"),  # where it writes; else below /tmp
)
model = builder.build(model_name=name)
endpoint = builder.deploy(endpoint_name=name, initial_instance_count=1, instance_type="ml.m5.large")
status = endpoint.endpoint_status
answer = endpoint.invoke(body=images, content_type="application/json")
predictions = json.loads(answer.body.read())["predictions"]
endpoint.delete()
EndpointConfig.get(name).delete()

serverless = ServerlessInferenceConfig(memory_size_in_mb=2048, max_concurrency=2)
endpoint = builder.deploy(endpoint_name=f"{name}-again", inference_config=serverless, wait=False)
endpoint.wait_for_status("InService", poll=1)
answer = endpoint.invoke(body=images, content_type="application/json")
found = {
    "uploaded": uploaded,
    "status": status,
    "predictions": predictions,
    "serverless": json.loads(answer.body.read())["predictions"],
}
endpoint.delete()
EndpointConfig.get(f"{name}-again").delete()
model.delete()

print()
print(json.dumps(found))
