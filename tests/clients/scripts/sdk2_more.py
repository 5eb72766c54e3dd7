"""Version 2 of the SageMaker Python SDK, what else people deploy with it. LUGGAGE

Each is waited for with a shorter interval than the SDK's half a minute.
"""

import json
import sys
from pathlib import Path
from typing import Any

import sagemaker
from sagemaker.deserializers import JSONDeserializer
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.serializers import CSVSerializer, JSONSerializer
from sagemaker.serverless import ServerlessInferenceConfig
from sagemaker.sklearn import SKLearnModel
from sagemaker.tensorflow import TensorFlowModel

HANDLERS = """
import json
def input_handler(data, context):
    return data.read().decode()
def output_handler(response, context):
    found = json.loads(response.content)["predictions"]
    return json.dumps({"classes": [row.index(max(row)) for row in found]}), "application/json"
"""
FUNCTIONS = """
import json, os
def model_fn(folder):
    return sorted(os.listdir(folder))
def predict_fn(data, model):
    return {"sum": float(data.sum()), "files": model}
def output_fn(prediction, accept):
    return json.dumps(prediction), "application/json"
"""
luggage = Path(sys.argv[1])
images = json.loads((luggage / "images.json").read_text())
session = sagemaker.Session()
bucket = session.default_bucket()
data = session.upload_data(str(luggage / "model.tar.gz"), key_prefix="more")
common = {"role": "arn:aws:iam::123456789012:role/anybody", "sagemaker_session": session}
found: dict[str, Any] = {}


def soon(predictor: Any) -> Any:
    """The predictor, once its endpoint is in service."""
    session.wait_for_endpoint(predictor.endpoint_name, poll=0.2)
    return predictor


def script(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def gone(predictor: Any) -> None:
    predictor.delete_model()
    predictor.delete_endpoint()


model = TensorFlowModel(model_data=data, framework_version="2.19", **common)
serverless = ServerlessInferenceConfig(memory_size_in_mb=2048, max_concurrency=2)
predictor = soon(model.deploy(serverless_inference_config=serverless, wait=False))
found["serverless"] = predictor.predict(images)["predictions"]
gone(predictor)

model = TensorFlowModel(
    model_data=data,
    framework_version="2.19",
    entry_point=script("inference.py", HANDLERS),
    **common,
)
where = {"initial_instance_count": 1, "instance_type": "ml.m5.large", "wait": False}
predictor = soon(model.deploy(**where))
found["script"] = predictor.predict(images)["classes"]
gone(predictor)

model = SKLearnModel(
    model_data=data,
    framework_version="1.2-1",
    py_version="py3",
    entry_point=script("functions.py", FUNCTIONS),
    **common,
)
predictor = soon(model.deploy(**where))
predictor.serializer, predictor.deserializer = CSVSerializer(), JSONDeserializer()
found["sklearn"] = predictor.predict([1, 2, 3.5])
gone(predictor)

image = sagemaker.image_uris.retrieve(
    "tensorflow", session.boto_region_name, version="2.19", instance_type="ml.m5.large",
    image_scope="inference",
)  # fmt: skip
model = Model(image_uri=image, model_data=data, predictor_cls=Predictor, **common)
predictor = soon(model.deploy(endpoint_name="plain", serializer=JSONSerializer(), **where))
predictor.deserializer = JSONDeserializer()
found["plain"] = predictor.predict(images)["predictions"]
gone(predictor)

print()
print(json.dumps(found))
