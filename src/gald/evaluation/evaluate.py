"""Judge a trained network.

gald eval ckpt_path=runs/demo/2026-11-22_12-00-00 split=test
gald eval ckpt_path=best.ckpt data=camvid data.root=FOLDER inference=slide
gald eval --check runs/demo/2026-11-22_12-00-00/results.json
"""

import sys
from pathlib import Path
from typing import Any, cast

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console

from gald.cli import one_sentence, quiet, run
from gald.config import CONF_DIR
from gald.data.datamodule import SegmentationDataModule
from gald.evaluation.evaluator import describe, judge
from gald.evaluation.reproduce import recheck
from gald.run.checkpoint import config_of, find_checkpoint, load_weights, read_checkpoint
from gald.run.results import SPLITS, Results, commit, score_table, versions, write_results
from gald.run.safe_targets import check_targets
from gald.task import EvaluationTask


def main() -> float | None:
    """Evaluate, or repeat an evaluation: `--check RESULTS_JSON [data.root=FOLDER]`."""
    if "--check" not in sys.argv:
        return _evaluate()
    place = sys.argv.index("--check")
    if place + 1 == len(sys.argv):
        raise ValueError("--check needs the results.json to repeat; name it after --check")
    overrides = sys.argv[1:place] + sys.argv[place + 2 :]
    return recheck(Path(sys.argv[place + 1]), overrides)


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="eval")
@one_sentence
def _evaluate(cfg: DictConfig) -> float:
    """Evaluate as the command line says; returns the split's mIoU."""
    cfg.output_dir = str(Path(HydraConfig.get().runtime.output_dir).absolute())
    return evaluate(cfg)[f"{cfg.split}/miou"]


def evaluate(cfg: DictConfig) -> Results:
    """Rebuild the network of a checkpoint, score a split, write `results.json`.

    Raises:
        ValueError: the split is unknown, the folder holds results that these would replace, or
            the data's classes are not the network's, or a config would build foreign code.
    """
    quiet()
    if cfg.split not in SPLITS:
        raise ValueError(f"split is {cfg.split!r}; choose {' or '.join(SPLITS)}")
    receipt = Path(cfg.output_dir) / "results.json"
    if receipt.exists():
        raise ValueError(f"{receipt} already holds results; choose another output_dir")
    path = find_checkpoint(cfg.ckpt_path)
    content = read_checkpoint(path)
    trained = config_of(content)
    for part in ("data", "inference", "metrics"):
        if cfg.get(part) is not None:
            # The new part may refer to the seed, and to how the trained network resizes.
            whole = OmegaConf.create({"model": trained.model, "seed": cfg.seed, part: cfg[part]})
            OmegaConf.resolve(whole)
            trained[part] = whole[part]
    trained.data.train_transform = None  # judging builds nothing that it does not use
    built = {part: trained[part] for part in ("data", "model", "inference", "metrics")}
    about = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(built), resolve=True))
    check_targets(about)

    data: SegmentationDataModule = instantiate(trained.data)
    known = list(content["gald"]["class_names"])
    if list(data.class_names) != known:
        raise ValueError(
            f"the network knows {len(known)} classes ({', '.join(known)}), the data has "
            f"{data.num_classes} ({', '.join(data.class_names)}); evaluate on data of its classes"
        )
    if cfg.split == "test" and not data.has_test:
        raise ValueError(
            f"{type(data).__name__} has no public test labels; choose split=val, the split that "
            "papers compare on"
        )
    model = instantiate(trained.model, num_classes=data.num_classes)
    load_weights(model, content, path)
    task = EvaluationTask(model, instantiate(trained.inference), data.class_names)
    trainer: pl.Trainer = instantiate(cfg.trainer, logger=False)
    signed = describe(about, path)
    results = judge(trainer, task, data, cfg.split, receipt.parent, trained.metrics, signed)
    results |= {"checkpoint": str(path), "commit": commit(), **versions()}
    say = rank_zero_only(Console().print)
    say(score_table(results, data.class_names))
    if trainer.is_global_zero:
        write_results(receipt, results)
        say(f"results: {receipt}", soft_wrap=True)
    return results


if __name__ == "__main__":
    run("gald.evaluation.evaluate:main", sys.argv[1:])
