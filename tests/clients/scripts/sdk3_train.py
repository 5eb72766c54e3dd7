"""Version 3 of the SageMaker Python SDK trains. LUGGAGE

ModelTrainer as its documents have it: the script and the data are uploaded, and what it sends along
runs the script in the container.
"""

import json
import logging
import sys
from pathlib import Path

from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode

logging.basicConfig(level=logging.INFO, stream=sys.stdout)  # where it prints the job's log
code = Path(sys.argv[1]) / "code"
trainer = ModelTrainer(
    training_image="763104351884.dkr.ecr.eu-west-3.amazonaws.com/tensorflow-training:2.19-cpu-py312",
    role="arn:aws:iam::123456789012:role/anybody",
    source_code=SourceCode(source_dir=str(code), entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    hyperparameters={"epochs": 2, "greeting": "good day"},
    base_job_name="third",
)
data = InputData(channel_name="training", data_source=str(code.parent / "images.json"))
trainer.train(input_data_config=[data])
job = trainer._latest_training_job
job.refresh()
print()
print(
    json.dumps(
        {
            "status": job.training_job_status,
            "model": job.model_artifacts.s3_model_artifacts,
            "seconds": job.billable_time_in_seconds,
        }
    )
)
