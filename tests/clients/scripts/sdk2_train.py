"""Version 2 of the SageMaker Python SDK trains, and deploys what it has trained. LUGGAGE

The TensorFlow estimator as its documents have it: fit with live logs, deploy to a serverless
endpoint, and to an instance with a script that was not there when the model was trained.
"""

import json
import sys
from pathlib import Path

import sagemaker
from sagemaker.serverless import ServerlessInferenceConfig
from sagemaker.tensorflow import TensorFlow

code = Path(sys.argv[1]) / "code"
session = sagemaker.Session()
data = session.upload_data(str(code.parent / "images.json"), key_prefix="to-train")
estimator = TensorFlow(
    entry_point="train.py",
    source_dir=str(code),
    role="arn:aws:iam::123456789012:role/anybody",
    framework_version="2.19",
    py_version="py312",
    instance_count=1,
    instance_type="ml.m5.large",
    hyperparameters={"epochs": 2, "greeting": "good day"},
    metric_definitions=[{"Name": "loss", "Regex": "loss: ([0-9.]+)"}],
)
estimator.fit({"training": data}, logs="All")
described = estimator.latest_training_job.describe()
places = {
    "serverless": estimator.deploy(
        serverless_inference_config=ServerlessInferenceConfig(
            memory_size_in_mb=2048, max_concurrency=2
        ),
        endpoint_name="trained-serverless",
        wait=False,
    ),
    "script": estimator.deploy(
        instance_type="ml.t2.medium",
        initial_instance_count=1,
        entry_point="inference.py",
        source_dir=str(code),
        endpoint_name="trained-script",
        wait=False,
    ),
}
answers = {}
for name, predictor in places.items():
    session.wait_for_endpoint(predictor.endpoint_name, poll=1)
    answers[name] = predictor.predict({"instances": [[1.0, 2.0]]})
    predictor.delete_model()
    predictor.delete_endpoint()
print()
print(
    json.dumps(
        {
            "status": described["TrainingJobStatus"],
            "model": estimator.model_data,
            "metrics": {
                one["MetricName"]: one["Value"] for one in described["FinalMetricDataList"]
            },
            "answers": answers,
        }
    )
)
