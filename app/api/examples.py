"""Examples that the OpenAPI document shows, taken from one story: a scanner and its model."""

from typing import Any, Final

DATASET: Final[dict[str, Any]] = {
    "id": "ds_0198f2c4a1b7d3e9a0c1b2d4",
    "created_at": "2026-03-02T09:15:00.120000Z",
    "scale": 1,
    "summary": "The pair is good.",
    "pairs": [
        {
            "name": "001",
            "clean": {"format": "PNG", "width": 576, "height": 576},
            "distorted": {"format": "JPEG", "width": 576, "height": 576},
            "scale": 1,
            "psnr_db": 26.61,
            "aligned_psnr_db": 26.64,
            "shift_px": {"x": 0.12, "y": -0.05},
            "rotation_deg": 0.004,
            "scale_factor": 1.0001,
            "correlation": 0.9982,
            "gain": [0.99, 0.99, 1.0],
            "offset": [0.8, 1.1, 0.4],
            "colour_difference": 0.6,
            "sharpness": {"clean": 7.9, "distorted": 3.6, "order": "right"},
            "texture": 0.84,
            "clipping": {"clean": 0.002, "distorted": 0.001},
            "duplicates": [],
            "verdict": "good",
            "note": "The images are aligned and ready to train on.",
            "findings": [],
            "fixed": None,
        }
    ],
}

METRICS: Final[dict[str, Any]] = {
    "protocol": "pairs",
    "held_out": ["009", "010"],
    "input": {"psnr": 26.58, "ssim": 0.842, "aligned_psnr": 26.61},
    "baseline": {"psnr": 26.91, "ssim": 0.851, "aligned_psnr": 26.95, "steps": 600},
    "result": {"psnr": 27.44, "ssim": 0.866, "aligned_psnr": 27.5, "steps": 600},
    "chosen": "guided-transfer",
    "gain_db": 0.86,
    "per_pair": [
        {
            "name": "009",
            "input_psnr": 26.31,
            "baseline_psnr": 26.6,
            "result_psnr": 27.13,
            "input_ssim": 0.838,
            "result_ssim": 0.862,
        }
    ],
    "candidates": [
        {"name": "scratch", "psnr": 26.91, "steps": 600, "stopped_early": False},
        {"name": "guided-transfer", "psnr": 27.44, "steps": 600, "stopped_early": False},
    ],
    "seconds": {"validating": 0.3, "embedding": 4.1, "training": 171.0, "evaluating": 4.8, "registering": 0.1},
}

OPTIONS: Final[dict[str, Any]] = {
    "name": "scanner",
    "new_version": False,
    "preset": "quick",
    "scheme": "auto",
    "backbone": "vdsr",
    "unshuffle": None,
    "init": "prior",
    "seed": 0,
    "transfer_steps": None,
    "finetune_steps": None,
    "loss": "l1",
    "priority": "normal",
    "prefer": "transferability",
    "guidance": "sample",
    "temperature": None,
    "top_k": None,
    "maml_order": None,
    "inner_rate": None,
    "linear_probe": True,
    "select": "paper",
    "fix": [],
    "allow_rejects": False,
}

JOB_FROM_DATASET: Final[dict[str, Any]] = {"dataset_id": DATASET["id"], "name": "scanner", "preset": "quick"}

JOB: Final[dict[str, Any]] = {
    "id": "job_0198f2c4b0e2f7a1c3d5e6f8",
    "name": "scanner",
    "dataset_id": DATASET["id"],
    "options": OPTIONS,
    "state": "succeeded",
    "phase": "registering",
    "progress": 1.0,
    "eta_s": 0.0,
    "queue_position": None,
    "attempt": 1,
    "created_at": "2026-03-02T09:15:00.310000Z",
    "started_at": "2026-03-02T09:15:00.350000Z",
    "finished_at": "2026-03-02T09:18:01.020000Z",
    "verdict": "gain",
    "explanation": "Fine-tuning after guided transfer reached 27.44 dB on 2 held-out pairs, +0.86 dB over the input.",
    "metrics": METRICS,
    "model": {"name": "scanner", "version": 1, "reference": "scanner@1"},
    "error": None,
}

EVENT: Final[dict[str, Any]] = {
    "id": 42,
    "job_id": JOB["id"],
    "created_at": "2026-03-02T09:16:10.000000Z",
    "kind": "progress",
    "payload": {"phase": "fine_tuning", "progress": 0.55, "eta_s": 81.0, "step": 270, "loss": 0.0213},
}

GRAPH: Final[dict[str, Any]] = {
    "directed": False,
    "multigraph": False,
    "graph": {
        "target": "target",
        "metric": "cosine",
        "verdict": "related",
        "fallback": None,
        "guidance": {"prefer": "transferability", "by": "sample", "temperature": None, "top_k": None},
        "in_areas": 0.0312,
        "displaced": 0.0874,
        "sentence": "Mostly like pure blur (γ 0.81); least like pure noise (γ 0.12). Learning to undo pure blur "
        "promises to help most (+0.8 dB at a first look).",
        "prior": "2026.1",
        "ranking": ["blur", "noise"],
        "projection": "pca",
    },
    "nodes": [
        {
            "id": "noise",
            "kind": "auxiliary",
            "x": -0.8,
            "y": 0.3,
            "gamma": 0.12,
            "gamma_std": 0.04,
            "gamma_min": 0.05,
            "gamma_max": 0.2,
            "gain_db": 0.65,
            "gain_db_std": 0.11,
            "rank": 2,
            "selected": True,
            "weight": 0.13,
            "psnr_db": 21.3,
            "samples": [[-0.7, 0.2]],
        },
        {
            "id": "blur",
            "kind": "auxiliary",
            "x": 0.6,
            "y": 0.1,
            "gamma": 0.81,
            "gamma_std": 0.03,
            "gamma_min": 0.75,
            "gamma_max": 0.86,
            "gain_db": 0.84,
            "gain_db_std": 0.14,
            "rank": 1,
            "selected": True,
            "weight": 0.87,
            "psnr_db": 25.9,
            "samples": [[0.5, 0.1]],
        },
        {"id": "target", "kind": "target", "x": 0.4, "y": 0.2, "psnr_db": 26.6, "samples": [[0.4, 0.25]]},
    ],
    "links": [
        {"source": "noise", "target": "blur", "cosine": 0.08},
        {"source": "noise", "target": "target", "cosine": 0.12, "weight": 0.13},
        {"source": "blur", "target": "target", "cosine": 0.81, "weight": 0.87},
    ],
}
GRAPH["edges"] = GRAPH["links"]

MODEL: Final[dict[str, Any]] = {
    "name": "scanner",
    "versions": [2, 1],
    "aliases": {"production": 2},
    "created_at": "2026-03-02T09:18:01.020000Z",
}

VERSION: Final[dict[str, Any]] = {
    "name": "scanner",
    "version": 1,
    "created_at": "2026-03-02T09:18:01.020000Z",
    "job_id": JOB["id"],
    "aliases": ["production"],
    "weights_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "card": {
        "backbone": "vdsr",
        "unshuffle": 2,
        "scale": 1,
        "chosen": "guided-transfer",
        "verdict": "gain",
        "gamma": {"blur": 0.81, "noise": 0.12},
        "task_weights": {"blur": 0.87, "noise": 0.13},
        "metrics": METRICS,
        "options": OPTIONS,
        "prior": "2026.1",
        "code_version": "0.1.0",
    },
}

RESTORE_OPTIONS: Final[dict[str, Any]] = {
    "precision": "auto",
    "outscale": None,
    "ensemble": 1,
    "explain": False,
    "metadata": "keep",
    "quality": None,
}

OPERATION: Final[dict[str, Any]] = {
    "id": "op_0198f2c9d4a0b1c2d3e4f5a6",
    "batch": None,
    "position": None,
    "name": None,
    "state": "succeeded",
    "progress": 1.0,
    "model": "scanner@1",
    "options": {**RESTORE_OPTIONS, "output": "png"},
    "created_at": "2026-03-02T09:20:00.000000Z",
    "started_at": "2026-03-02T09:20:00.004000Z",
    "finished_at": "2026-03-02T09:20:00.400000Z",
    "facts": {
        "media_type": "image/png",
        "width": 1200,
        "height": 800,
        "depth": 8,
        "tile": 384,
        "tiles": 12,
        "precision": "bf16",
        "fallback_tiles": 0,
        "match": 0.93,
        "match_word": "close",
        "match_note": "The image is spoiled as the training images were.",
        "seconds": {"decode": 0.012, "restore": 0.341, "encode": 0.038},
    },
    "result": "/v1/operations/op_0198f2c9d4a0b1c2d3e4f5a6/result",
    "trust": None,
    "error": None,
}

BATCH: Final[dict[str, Any]] = {
    "id": "batch_0198f2d0e1f2a3b4c5d6e7f8",
    "state": "running",
    "progress": 0.5,
    "counts": {"total": 3, "queued": 1, "running": 0, "cancelling": 0, "succeeded": 1, "failed": 1, "cancelled": 0},
    "model": "scanner",
    "options": {**RESTORE_OPTIONS, "output": None},
    "created_at": "2026-03-02T09:25:00.000000Z",
    "finished_at": None,
    "result": "/v1/batches/batch_0198f2d0e1f2a3b4c5d6e7f8/result",
}

BATCH_WITH_ITEMS: Final[dict[str, Any]] = {
    **BATCH,
    "items": [
        {**OPERATION, "batch": BATCH["id"], "position": 0, "name": "roll 1/001.png"},
        {
            **OPERATION,
            "id": "op_0198f2d0e1f2a7b8c9dae1f2",
            "batch": BATCH["id"],
            "position": 1,
            "name": "roll 1/002.png",
            "state": "failed",
            "progress": 0.0,
            "started_at": None,
            "facts": None,
            "result": None,
            "error": {"code": "bad-image", "message": "The image is damaged or incomplete."},
        },
        {
            **OPERATION,
            "id": "op_0198f2d0e1f2a9bacbdce3f4",
            "batch": BATCH["id"],
            "position": 2,
            "name": "roll 1/003.png",
            "state": "queued",
            "progress": 0.0,
            "started_at": None,
            "finished_at": None,
            "facts": None,
            "result": None,
        },
    ],
    "next": None,
}

WEBHOOK: Final[dict[str, Any]] = {
    "id": "wh_0198f2e0a1b2c3d4e5f6a7b8",
    "created_at": "2026-03-02T09:10:00.000000Z",
    "url": "https://lab.example/drtl",
    "events": ["job.succeeded", "job.failed"],
    "description": "The lab's queue",
    "enabled": True,
    "failing_since": None,
    "disabled_at": None,
    "disabled_reason": None,
    "previous_secret_until": None,
}

WEBHOOK_WITH_SECRET: Final[dict[str, Any]] = {**WEBHOOK, "secret": "whsec_…"}

DELIVERY: Final[dict[str, Any]] = {
    "id": "msg_0198f2e4c5d6e7f8a9b0c1d2",
    "webhook_id": WEBHOOK["id"],
    "event": "job.succeeded",
    "job_id": JOB["id"],
    "state": "delivered",
    "created_at": "2026-03-02T09:18:01.020000Z",
    "finished_at": "2026-03-02T09:18:06.400000Z",
    "next_attempt_at": None,
    "message": {
        "type": "job.succeeded",
        "timestamp": "2026-03-02T09:18:01.020+00:00",
        "data": {
            "job_id": JOB["id"],
            "name": "scanner",
            "state": "succeeded",
            "attempt": 1,
            "verdict": "gain",
            "model": "scanner",
            "version": 1,
        },
    },
    "attempts": [
        {
            "number": 1,
            "created_at": "2026-03-02T09:18:01.100000Z",
            "seconds": 0.08,
            "status": 503,
            "error": None,
            "excerpt": "Down for maintenance",
        },
        {
            "number": 2,
            "created_at": "2026-03-02T09:18:06.390000Z",
            "seconds": 0.05,
            "status": 204,
            "error": None,
            "excerpt": None,
        },
    ],
}

READY: Final[dict[str, Any]] = {"status": "ready", "checks": {"database": "ok", "broker": "ok", "storage": "ok"}}
