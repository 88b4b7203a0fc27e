"""Answer for uploaded images with an exported model: uvicorn service:app."""

import tempfile
from pathlib import Path

from fastapi import FastAPI, HTTPException, UploadFile

import cxr_compare

app = FastAPI()
run = cxr_compare.Run.open("out/retinanet-onnx")


@app.post("/analyze")
def analyze(file: UploadFile) -> dict:
    """Return the answer of ``cxr predict --json``, or status 422 with the reason."""
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, Path(file.filename or "image").name)
        image.write_bytes(file.file.read())
        try:
            return run.predict(image).to_json() | {"image": image.name}
        except cxr_compare.InputError as error:
            raise HTTPException(422, str(error)) from None
