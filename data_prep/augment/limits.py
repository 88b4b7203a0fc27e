"""The largest value of each augmentation: what configurations and `build_augmentation` accept."""

LIMITS = {
    "rotate_degrees": 45.0,
    "scale": 0.9,
    "shift": 0.9,
    "brightness": 1.0,
    "contrast": 1.0,
    "gamma": 3.0,
    "blur": 5.0,
    "noise": 1.0,
    "cutout": 0.9,
    "horizontal_flip": 1.0,
}
