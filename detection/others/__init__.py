"""Detectors beside RetinaNet: Faster R-CNN, FCOS, SSDLite and DETR."""
