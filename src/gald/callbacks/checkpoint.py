"""Checkpoint of the best epoch."""

from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.callbacks import ModelCheckpoint
from typing_extensions import override


class BestCheckpoint(ModelCheckpoint):
    """Callback that keeps `best.ckpt`, the epoch with the best score, in a folder.

    Its saved state contains no folder, so a run can be resumed after it was moved or copied: only a
    better score replaces `best.ckpt`.

    Args:
        dirpath: the folder.
        monitor: the score.
        mode: `max` if a higher score is better, else `min`.
        save_top_k: must be 1.

    Raises:
        ValueError: more than one checkpoint was asked for.
    """

    def __init__(
        self,
        dirpath: str,
        monitor: str = "val/miou",
        mode: Literal["min", "max"] = "max",
        save_top_k: Literal[1] = 1,
    ) -> None:
        if save_top_k != 1:
            raise ValueError(
                f"save_top_k is {save_top_k}, but best.ckpt is 1 file; add the "
                "callback epochs, which keeps the weights of every epoch"
            )
        super().__init__(dirpath, "best", monitor=monitor, mode=mode, enable_version_counter=False)

    @property
    @override
    def state_key(self) -> str:
        # Runs of gald 0.1.0 saved the state of Lightning's class.
        return super().state_key.replace(type(self).__qualname__, "ModelCheckpoint", 1)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"monitor": self.monitor, "best_model_score": self.best_model_score}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        path = Path(str(self.dirpath)) / "best.ckpt"
        score = state_dict["best_model_score"]
        if score is None or not path.is_file() or state_dict["monitor"] != self.monitor:
            return
        self.best_model_path = self.kth_best_model_path = str(path)
        self.best_model_score = self.kth_value = score
        self.best_k_models = {str(path): score}
