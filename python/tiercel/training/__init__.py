"""Training: gradients of any model, fine-tuning, and models from nothing.

    >>> from tiercel.training import Adam, Dense, Sequential, Trainer
    >>> model = Sequential([Dense(64, "relu"), Dense(10)], input_shape=(784,), seed=0)
    >>> trainer = Trainer(model, loss="cross_entropy", optimizer=Adam(1e-3))
    >>> trainer.fit(x, labels, epochs=5, batch_size=64)
    >>> trainer.save("trained.onnx")

Forward, loss, gradients and optimiser are one graph and one call a step; the arithmetic is the engine's.
"""

from tiercel.training.callbacks import Callback, Checkpoint, EarlyStopping, TensorBoard
from tiercel.training.checkpoint import CheckpointError
from tiercel.training.gradients import differentiable_operators, gradient
from tiercel.training.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool,
    Permute,
    Reshape,
    RMSNorm,
)
from tiercel.training.loop import History
from tiercel.training.lora import LoRA, apply_adapter
from tiercel.training.losses import Loss, ctc_decode, ctc_targets, loss_gradient, loss_names, loss_value
from tiercel.training.optimizers import SGD, Adagrad, Adam, AdamW, Lion, Momentum, Optimizer, RMSprop
from tiercel.training.plots import plot_decision, plot_history
from tiercel.training.schedules import Constant, Cosine, OneCycle, ReduceOnPlateau, Schedule, StepDecay, WarmUp
from tiercel.training.sequence_layers import (
    GRU,
    LSTM,
    RNN,
    Embedding,
    MultiHeadAttention,
    PositionEmbedding,
    Residual,
    SequencePool,
)
from tiercel.training.sequential import Sequential
from tiercel.training.trainer import Trainer

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SGD",
    "Activation",
    "Adagrad",
    "Adam",
    "AdamW",
    "AveragePool",
    "BatchNorm",
    "Callback",
    "Checkpoint",
    "CheckpointError",
    "Constant",
    "Conv",
    "ConvTranspose",
    "Cosine",
    "Dense",
    "Dropout",
    "EarlyStopping",
    "Embedding",
    "Flatten",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "GroupNorm",
    "History",
    "Layer",
    "LayerNorm",
    "Lion",
    "LoRA",
    "Loss",
    "MaxPool",
    "Momentum",
    "MultiHeadAttention",
    "OneCycle",
    "Optimizer",
    "Permute",
    "PositionEmbedding",
    "RMSNorm",
    "RMSprop",
    "ReduceOnPlateau",
    "Reshape",
    "Residual",
    "Schedule",
    "SequencePool",
    "Sequential",
    "StepDecay",
    "TensorBoard",
    "Trainer",
    "WarmUp",
    "apply_adapter",
    "ctc_decode",
    "ctc_targets",
    "differentiable_operators",
    "gradient",
    "loss_gradient",
    "loss_names",
    "loss_value",
    "plot_decision",
    "plot_history",
]
