"""Print the answer of an exported detector for a PNG image, by ONNX Runtime alone."""

import json

import cv2
import numpy as np
import onnxruntime

threshold = 0.31
session = onnxruntime.InferenceSession("out/retinanet-onnx/model.onnx")
facts = session.get_modelmeta().custom_metadata_map
size, findings = json.loads(facts["size"]), json.loads(facts["findings"])
pixels = np.asarray(cv2.imread("xray.png", cv2.IMREAD_GRAYSCALE))
height, width = pixels.shape
scale = size / max(height, width)
w, h = round(width * scale), round(height * scale)
x, y = (size - w) // 2, (size - h) // 2
square = np.zeros((1, 1, size, size), np.uint8)
square[0, 0, y : y + h, x : x + w] = cv2.resize(pixels, (w, h), interpolation=cv2.INTER_AREA)
boxes, scores, labels = session.run(None, {"images": square})
boxes = (boxes - [x, y, x, y]) / np.tile([w / width, h / height], 2)
boxes = boxes.clip(0, [width, height, width, height])
score = scores.max(initial=0.0)
print(f"score {score:.4f}:", "positive" if score >= threshold else "negative")
for box, box_score, label in zip(boxes, scores, labels):
    if box_score >= threshold:
        print(findings[label - 1], box.round(1), box_score)
