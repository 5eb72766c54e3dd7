"""Version 2 of the SageMaker Python SDK, as its documents have it. LUGGAGE

A TensorFlow model is deployed to an instance, waited for as the SDK waits, and deleted.
"""

import json
import sys
from pathlib import Path

import sagemaker
from sagemaker.tensorflow import TensorFlowModel

luggage = Path(sys.argv[1])
session = sagemaker.Session()
uploaded = session.upload_data(str(luggage / "model.tar.gz"), key_prefix="by-hand")
model = TensorFlowModel(
    model_data=uploaded,
    role="arn:aws:iam::123456789012:role/anybody",
    framework_version="2.19",
    sagemaker_session=session,
)
predictor = model.deploy(initial_instance_count=1, instance_type="ml.m5.large")
answer = predictor.predict(json.loads((luggage / "images.json").read_text()))
name = predictor.endpoint_name
described = session.sagemaker_client.describe_endpoint(EndpointName=name)
predictor.delete_model()
predictor.delete_endpoint()
found = {
    "version": sagemaker.__version__,
    "uploaded": uploaded,
    "bucket": session.default_bucket(),
    "status": described["EndpointStatus"],
    "predictions": answer["predictions"],
}
print()
print(json.dumps(found))
