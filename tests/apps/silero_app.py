"""silero-vad, as its README says to use it, on made-up speech: silero_app.py ENGINE FOLDER writes FOLDER/result.npz."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path

import numpy as np
from engine import choose, prove


def voice(seconds: float, rate: int, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Harmonics of a wavering pitch, shaped by moving formants and by syllables four times a second."""
    t = np.arange(int(seconds * rate)) / rate
    phase = (
        2
        * np.pi
        * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 2.3 * t) + 0.02 * rng.standard_normal(t.size)))
        / rate
    )
    formants = [
        (600 + 250 * np.sin(2 * np.pi * 3 * t), 90),
        (1500 + 500 * np.sin(2 * np.pi * 2 * t + 1), 140),
        (2600 + 0 * t, 200),
    ]
    sound = np.zeros_like(t)
    for k in range(1, int(0.45 * rate / (pitch * 1.15))):
        weight = sum(np.exp(-(((k * pitch - centre) / (2 * width)) ** 2)) for centre, width in formants)
        sound += (weight + 0.02) / k**0.3 * np.sin(k * phase)
    syllables = np.clip(np.sin(2 * np.pi * 4 * t) + 0.6, 0, 1) ** 0.5
    sound = sound * syllables + 0.02 * rng.standard_normal(t.size) * syllables
    return 0.3 * sound / np.abs(sound).max()


def recording(rate: int) -> np.ndarray:
    """Silence, a voice, a chirp, noise, a deeper voice, silence: 8.5 seconds of float32 in [-1, 1]."""
    rng = np.random.default_rng(1)
    t = np.arange(rate) / rate
    parts = [
        np.zeros(rate // 2), voice(2, rate, 180, rng), np.zeros(rate // 2), 0.2 * np.sin(2 * np.pi * (200 * t + 700 * t * t)),
        0.05 * rng.standard_normal(rate), voice(2, rate, 110, rng), np.zeros(rate // 2), 0.003 * rng.standard_normal(rate),
    ]  # fmt: skip
    return np.concatenate(parts).astype(np.float32)


def main(engine: str, folder: Path) -> None:
    choose(engine)
    warnings.simplefilter("ignore")
    import torch
    from silero_vad import SileroVADSequence, VADIterator, get_speech_timestamps, load_silero_vad

    found: dict[str, np.ndarray] = {}

    def stamps(rows: list[dict[str, int]]) -> np.ndarray:
        return np.array([[r["start"], r["end"]] for r in rows], np.int64).reshape(-1, 2)

    for opset, rates in ((16, (16000, 8000)), (15, (16000,))):
        model = load_silero_vad(onnx=True, opset_version=opset)
        for rate in rates:
            audio = torch.from_numpy(recording(rate))
            found[f"probabilities opset {opset} at {rate}"] = model.audio_forward(audio[None], rate).numpy()
            found[f"timestamps opset {opset} at {rate}"] = stamps(
                get_speech_timestamps(audio, model, sampling_rate=rate)
            )
    model = load_silero_vad(onnx=True)
    whole = recording(16000)
    batch = torch.from_numpy(np.stack([whole, whole[::-1].copy(), 0.1 * whole]))
    found["probabilities of a batch"] = model.audio_forward(batch, 16000).numpy()
    iterator, events = VADIterator(model), []
    for i in range(0, len(whole) - 511, 512):
        if event := iterator(torch.from_numpy(whole[i : i + 512])):
            events.append([i, event.get("start", -1), event.get("end", -1)])
    found["stream events"] = np.array(events, np.int64).reshape(-1, 3)
    sequence: SileroVADSequence = load_silero_vad(sequence=True)
    found["probabilities of a sequence"] = np.asarray(sequence.audio_forward(whole))
    found |= other_files(whole)
    np.savez(folder / "result.npz", **found)
    prove(engine)


def other_files(audio: np.ndarray) -> dict[str, np.ndarray]:
    """The variants that the package ships beside: half precision, and one without If."""
    import onnxruntime

    spec = importlib.util.find_spec("silero_vad")
    assert spec is not None
    assert spec.origin is not None
    found = {}
    for name in ("silero_vad_half", "silero_vad_op18_ifless"):
        session = onnxruntime.InferenceSession(
            str(Path(spec.origin).parent / "data" / f"{name}.onnx"), providers=["CPUExecutionProvider"]
        )
        kinds = {i.name: i.type for i in session.get_inputs()}
        state = np.zeros((2, 1, 128), np.float32)
        probabilities = []
        for i in range(64, len(audio) - 511, 512):
            feeds = {"input": audio[None, i - 64 : i + 512], "state": state, "sr": np.array(16000, np.int64)}
            out, state = session.run(None, {k: v for k, v in feeds.items() if k in kinds})
            probabilities.append(out)
        found[f"probabilities {name}"] = np.concatenate(probabilities)
    return found


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
