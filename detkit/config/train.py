"""The section of a config that says how a net is trained."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from detkit.config.section import Count, Fraction, Loggers, Name, NotNegative, Positive, PositiveInt, Section


class TrainConfig(Section):
    """The run."""

    epochs: PositiveInt = 12
    """Passes over the training split."""
    iterations: PositiveInt | None = None
    """Optimizer steps; where given, they win over `epochs`."""
    batch_size: PositiveInt = 16
    """Pictures a batch of each process."""
    accumulate: PositiveInt = 1
    """Batches a step."""
    optimizer: Literal["sgd", "adamw", "rmsprop"] = "sgd"
    """What turns gradients into steps."""
    lr: Positive = 0.02
    """Learning rate for 16 pictures a step, scaled to the actual number."""
    momentum: Fraction = 0.9
    """Of SGD and RMSProp."""
    nesterov: bool = False
    """SGD with Nesterov's momentum."""
    alpha: Fraction = 0.9
    """RMSProp's decay of the mean square."""
    eps: Positive = 1e-8
    """What RMSProp and AdamW add to the root."""
    weight_decay: NotNegative = 1e-4
    """Of all weights of detectors but those of norms and biases."""
    backbone_lr_factor: Positive = 1.0
    """Factor of the backbone's learning rate."""
    schedule: Literal["multistep", "cosine", "onecycle", "exponential", "linear"] = "multistep"
    """Course of the learning rate after the warm-up."""
    milestones: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (2 / 3, 11 / 12)
    """`multistep`: fractions of the run after which the rate is multiplied by `gamma`."""
    gamma: Positive = 0.1
    """Factor of `multistep` and `exponential`."""
    decay_epochs: Positive = 1.0
    """`exponential`: epochs between two multiplications."""
    warmup_steps: Count = 500
    """Steps over which the rate rises."""
    warmup_factor: Annotated[float, Field(gt=0, le=1)] = 0.001
    """Share of the rate with which it begins."""
    clip_norm: NotNegative = 0.0
    """Gradients are scaled to at most this norm; 0 is off."""
    skip_nonfinite: Count = 0
    """So many steps whose loss or gradient is not finite are skipped before one stops the run."""
    thaw_at: Annotated[int, Field(ge=2)] | None = None
    """From this epoch on, counted from 1, the stages that `model.backbone.frozen_stages` froze train, too."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Moving average of the weights, which evaluation and best.pth use; 0 is off."""
    seed: Count = 0
    """Of all that is random."""
    output: Name = None
    """The run folder; none: runs/NAME, numbered where it exists."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, ..."""
    deterministic: bool = False
    """Refuse operators of torch that do not repeat to the bit."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 where the processor has it, else float32."""
    eval_every: PositiveInt = 1
    """Epochs between two evaluations."""
    val_losses: bool = True
    """Losses on the validation split with each evaluation of a detector."""
    patience: Count = 0
    """The run ends after so many evaluations in a row without a better AP; 0 is off."""
    save_every: PositiveInt = 1
    """Epochs between two writings of last.pth."""
    log_every: PositiveInt = 20
    """Steps between two rows of metrics.jsonl."""
    loggers: Loggers = ("tensorboard",)
    """What gets the rows of metrics.jsonl, too, joined by commas; none: the file alone."""
    checkpoint_minutes: NotNegative = 10.0
    """Minutes between two writings of last.pth within an epoch; 0 is off."""
    distributed_timeout_seconds: Positive = 600.0
    """How long a process waits for the others before it takes them for lost."""

    @model_validator(mode="after")
    def _go_together(self) -> "TrainConfig":
        if list(self.milestones) != sorted(self.milestones):
            raise ValueError(f"milestones must rise, got {self.milestones}")
        if self.optimizer == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs momentum above 0")
        return self
