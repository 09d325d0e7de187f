"""The command line answers at once, completes words, and says what a wrong word may have meant."""

import json
import re
import subprocess
import sys

import pytest

from gald import __version__, cli
from gald.command_line.hints import TRAINER, did_you_mean
from gald.completion.command import endings
from gald.config import CONF_DIR, compose
from gald.options.check import check_config
from gald.options.roots import Train

HEAVY = ("torch", "pytorch_lightning", "torchvision", "timm", "wandb", "scipy", "matplotlib")
ANSWERED = [
    *([verb, "--help"] for verb in cli.VERBS),
    ["train", "--cfg", "job"],
    ["train", "--info", "searchpath"],
    ["eval", "--cfg", "job"],
    ["train", "ga=psp"],
    ["train", "model/ga=pps"],
    ["predict", "--too", "x"],
    ["sweep", "stauts"],
    ["trian"],
    ["--version"],
    ["completion", "--line", "gald train model/ga=p"],
]
# One process answers all of them, because each start takes half a second.
START = """
import contextlib, io, json, os, sys
from gald import cli
answers = []
for words in json.loads(sys.argv[1]):
    sys.argv, said = ["gald", *words], io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        with contextlib.suppress(SystemExit):
            cli.main()
    heavy = {name.split(".")[0] for name in sys.modules} & set(HEAVY)
    answers.append([words, said.getvalue(), sorted(heavy), os.listdir()])
print(json.dumps(answers))
""".replace("HEAVY", repr(HEAVY))


@pytest.mark.integration
def test_an_answer_about_the_command_line_imports_nothing_heavy(tmp_path):
    command = [sys.executable, "-c", START, json.dumps(ANSWERED)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    answers = json.loads(done.stdout)
    assert [words for words, *_ in answers] == ANSWERED
    for words, said, heavy, files in answers:
        assert said.strip(), words
        assert not heavy, words
        assert not files, words


@pytest.mark.parametrize("verb", ["data", "sweep", "wandb"])
def test_help_says_what_every_action_does(verb, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gald", verb, "--help"])
    monkeypatch.setenv("COLUMNS", "80")
    cli.main()
    actions = dict(re.findall(r"^│ (\w+) *(.*?) *│$", capsys.readouterr().out, re.M))
    assert len(actions) > 1 and all(actions.values()), actions


def test_gald_itself_imports_nothing(tmp_path):
    code = "import sys; n = set(sys.modules); import gald; print(len(set(sys.modules) - n))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50


@pytest.mark.parametrize(
    ("word", "meant"),
    {
        "ga=psp": "model/ga=psp",
        "ld=mask": "model/ld=mask",
        "model/gaa=psp": "model/ga=psp",
        "backbone=resnet18": "model/backbone=resnet18",
        "lr=0.1": "optimizer.lr=0.1",
        "optimizer.learning_rate=1": "optimizer.lr=1",
        "epoch=3": "trainer.max_epochs=3",
        "epochs=3": "trainer.max_epochs=3",
        "max_steps=3": "trainer.max_steps=3",
        "batch_size=8": "data.global_batch_size=8",
        "batchsize=8": "data.global_batch_size=8",
        "data.batch_size=8": "data.global_batch_size=8",
        "workers=2": "data.num_workers=2",
        "dataset=camvid": "data=camvid",
        "debgu=fdr": "debug=fdr",
        "trainer.max_time=00:01": "+trainer.max_time=00:01",
        "trainer.max_epoch=3": "trainer.max_epochs=3",
        "camvid": "data=camvid",
        "demo": "experiment=demo",
        "crop_size=[3,4]": "'data.train_transform.crop_size=[3,4]'",
        "hello=3": None,
    }.items(),
)
def test_a_wrong_word_is_answered_with_the_one_that_was_meant(word, meant):
    assert did_you_mean(word, CONF_DIR / "train.yaml") == meant


def test_eval_suggests_only_its_own_keys():
    assert did_you_mean("splt=val", CONF_DIR / "eval.yaml") == "split=val"
    assert did_you_mean("lr=3", CONF_DIR / "eval.yaml") is None


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["train", "ga=psp"], "did you mean model/ga=psp?"),
        (["train", "--epochs", "3"], "did you mean trainer.max_epochs=3?"),
        (["train", "--lr=0.1"], "did you mean optimizer.lr=0.1?"),
        (["train", "debug=fd"], "did you mean debug=fdr?"),
        (["profile", "ld=mask"], "did you mean model/ld=mask?"),
        (["sweep", "plan", "ga=psp,none", "--no-probe"], "did you mean model/ga=psp,none?"),
        (["data", "stats", "synthetic", "lr=3"], "did you mean optimizer.lr=3?"),
        (["train", "-m", "ga=psp,none"], "did you mean model/ga=psp,none?"),
        (["trian"], "did you mean gald train?"),
        (["lr=3"], "did you mean gald train lr=3?"),
        (["data", "verfy", "camvid"], "did you mean verify?"),
        (["predict", "run", "a.png", "--too", "x"], "did you mean --to?"),
        (["train", "data.size=[3"], "quote it"),
        (["train", "tags=[a", "b]"], "quote"),
        (["train", "+seed=3"], "seed is in the config already; write seed=VALUE, without +"),
        (["train", "data.root=x"], "data.root is a key of data=ade20k, data=camvid, "),
        (
            ["train", "logger=csv", "logger.wandb.mode=online"],
            "add 'logger=[csv,wandb]', or remove",
        ),
        (["train", "callbacks.ema.decay=0.9"], "add +callbacks=ema, or remove"),
        (["train", "data.train_transform.extra.rain.p=1"], "add +augment=weather, or remove"),
        (["train", "name=x,y"], "add -m to train with each of them, or write 'name="),
        (["train", "optimizer.lr=(3"], "quote it"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_command_answers_with_what_was_meant(words, meant, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GALD_TRACEBACK", raising=False)
    monkeypatch.setattr(sys, "argv", ["gald", *words])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    sentence = capsys.readouterr().err.splitlines()[-2]
    assert meant in sentence and sentence.startswith("gald: ")
    assert not list(tmp_path.iterdir())


def test_keys_of_the_trainer_are_in_the_yaml_or_are_added_with_a_plus():
    import inspect

    from omegaconf import OmegaConf
    from pytorch_lightning import Trainer

    listed = set(OmegaConf.load(CONF_DIR / "trainer" / "default.yaml"))
    ours = {"logger", "callbacks", "accumulate_grad_batches"}  # set by groups and batch sizes
    ours |= {"limit_predict_batches"}  # the trainer does not predict
    assert set(inspect.signature(Trainer).parameters) <= listed | set(TRAINER) | ours


@pytest.mark.parametrize(
    ("line", "words"),
    {
        "gald tr": ["train"],
        "gald train model/ga=ps": ["model/ga=psp", "model/ga=psp_bare"],
        "gald train -m model/ga=none,st": ["model/ga=none,strip"],
        "gald train experiment=dem": ["experiment=demo"],
        "gald train optimizer.l": ["optimizer.lr="],
        "gald train +callbacks=em": ["+callbacks=ema"],
        "gald train augment=st": ["augment=standard", "augment=strong"],
        "gald train data.train_transform.extra.rai": [
            "data.train_transform.extra.rain.",
            "data.train_transform.extra.rain=",
        ],
        "gald train ckpt": ["ckpt_path="],
        "gald eval spl": ["split="],
        "gald predict run --ma": ["--masks"],
        "gald sweep st": ["status"],
        "gald sweep plan model/ld=aff": ["model/ld=affinity"],
        "gald data verify camv": ["camvid"],
        "gald train model/ga=nothing": [],
        "gald nothing x": [],
    }.items(),
)
def test_completion_ends_words(line, words):
    assert endings(line) == words


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONF_DIR / "debug").glob("*.yaml")))
def test_debug_options_change_any_experiment_and_log_to_csv_only(name):
    config = compose("train", ["experiment=camvid_lite0", f"debug={name}"])
    check_config(config, Train)
    assert list(config.logger) == ["csv"] and config.name == "debug"
    assert config.trainer.max_epochs == 2 or name != "limit"


def test_a_search_of_hyperparameters_maximises_the_score_of_the_validation():
    config = compose("train", ["experiment=demo", "hparams_search=optuna"], hydra=True)
    sweeper = config.hydra.sweeper
    assert sweeper.direction == "maximize" and "optimizer.lr" in sweeper.params
    assert config.test is False


def test_bash_completes_the_words_of_the_console_script(console, tmp_path):
    script = console("completion", "bash", cwd=tmp_path).stdout
    gald = console("--version", cwd=tmp_path).args[0]
    ask = f"""
gald() {{ {gald} "$@"; }}
{script}
COMP_LINE='gald train model/ga=ps'; COMP_POINT=${{#COMP_LINE}}
_gald 2>/dev/null; printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout == "psp\npsp_bare\n"  # bash takes = for the end of a word


def test_a_reader_that_stops_reading_is_no_error(tmp_path):
    code = (
        "import sys; from gald import cli; sys.argv = ['gald', 'train', '--cfg', 'all']; cli.main()"
    )
    command = f'{sys.executable} -c "{code}" | head -1'
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1


def test_version(console, tmp_path):
    assert console("--version", cwd=tmp_path).stdout == f"gald {__version__}\n"
