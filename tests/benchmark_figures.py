"""Figures of one run of the benchmark, made up."""

FIGURES = {
    "n_train": 10,
    "image_auroc": 0.75,
    "n_good": 4,
    "n_defective": 2,
    "false_alarms": 1,
    "detections": 2,
    "false_alarm_rate": 0.25,
    "detection_rate": 1.0,
    "pixel_auroc": 0.9,
    "au_pro": 0.8,
    "threshold": 0.5,
    "target_fpr": 0.05,
    "promised_fpr": 0.05,
    "n_calibration": 30,
    "training_seconds": 1.5,
    "images_per_second": 100.0,
    "peak_memory_mb": 500.0,
    "notes": [],
}
