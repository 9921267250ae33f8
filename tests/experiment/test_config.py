from pathlib import Path

import pytest

from harmofl.errors import ConfigError
from harmofl.experiment.config import check_data, load_experiment, parse_settings, resolved, to_toml

CONFIGS = Path(__file__).parents[2] / "configs"
PAPER = CONFIGS / "paper"
"""A link to the settings in the package."""


@pytest.mark.parametrize("path", sorted((*CONFIGS.rglob("*.toml"), *PAPER.glob("*.toml"))), ids=lambda path: path.stem)
def test_configurations_of_the_project_are_valid(path: Path) -> None:
    load_experiment(path, {})


PAIRS = ["camelyon17", "nuclei", "prostate"]


@pytest.mark.parametrize("name", PAIRS)
def test_paper_and_released_differ_in_the_marked_lines_alone(name: str) -> None:
    texts = [(PAPER / f"{name}-{which}.toml").read_text().splitlines() for which in ("paper", "released")]
    marked = [
        [line for line in text if f"# {which}: " in line]
        for text, which in zip(texts, ("PAPER", "RELEASED"), strict=True)
    ]
    assert 2 <= len(marked[0]) <= len(marked[1])
    others = [
        [line.replace("-released", "-paper") for line in text[1:] if line not in found]
        for text, found in zip(texts, marked, strict=True)
    ]
    assert others[0] == others[1]


@pytest.mark.parametrize("name", PAIRS)
def test_published_experiments_are_the_papers(name: str) -> None:
    """METHOD of the paper: operators, rounds, batch, optimizer, and what the released code does instead."""
    paper, released = (load_experiment(PAPER / f"{name}-{which}.toml", {}) for which in ("paper", "released"))
    assert (paper.method_table["band"], paper.method_table["decay"], paper.method_table["rho"]) == (1.0, 0.1, 0.05)
    assert (released.method_table["band"], released.method_table["decay"]) == (0.0, 0.0)
    training = paper.training
    expected = {"camelyon17": (100, 1e-3, "sgd"), "nuclei": (500, 1e-4, "sgd"), "prostate": (500, 1e-4, "adam")}
    assert (training.rounds, training.lr, training.optimizer) == expected[name]
    assert "https://" in paper.data.source


def test_defaults_are_the_papers() -> None:
    cells = resolved(load_experiment(None, {"data.folder": "x"}), "classification")
    assert cells.network.name == "densenet"
    assert (cells.training.optimizer, cells.training.lr, cells.training.loss) == ("sgd", 1e-3, "cross-entropy")
    mri = resolved(load_experiment(None, {"data.folder": "x"}), "segmentation")
    assert mri.network.name == "unet"
    assert (mri.training.optimizer, mri.training.lr, mri.training.loss) == ("adam", 1e-4, "dice-ce")
    paper = {"name": "harmofl", "weighting": "uniform", "rho": 0.05, "band": 1.0, "decay": 0.1, "strength": 1.0}
    assert paper.items() <= mri.method_table.items()


def test_what_is_given_beats_the_default() -> None:
    given = load_experiment(None, {"data.folder": "x", "training.lr": 0.5, "alpha": 0.2})
    assert resolved(given, "segmentation").training.lr == 0.5
    assert resolved(given, "segmentation").method_table["rho"] == 0.2


def test_written_configuration_reads_back(tmp_path: Path) -> None:
    experiment = resolved(load_experiment(None, {"data.folder": "x", "data.size": [8, 9]}), "segmentation")
    (tmp_path / "config.toml").write_text(to_toml(experiment, {"torch": "2"}))
    assert load_experiment(tmp_path / "config.toml", {}) == experiment


def test_settings_are_toml_values_or_text() -> None:
    given = parse_settings(["a.b=0.5", "c=true", "d=[1, 2]", "e=off", "f=sgd", "g=a=b"])
    assert given == {"a.b": 0.5, "c": True, "d": [1, 2], "e": "off", "f": "sgd", "g": "a=b"}


@pytest.mark.parametrize("size", ["64x48", [64, 48]])
def test_sizes_and_names_also_as_words(size: object) -> None:
    """As of `--size` and `--unseen`."""
    data = load_experiment(None, {"data.size": size, "data.unseen": "oslo", "data.sites": ["bergen", "oslo"]}).data
    assert data.size == (64, 48) and data.unseen == ("oslo",) and data.sites == ("bergen", "oslo")
    assert load_experiment(None, {"data.size": "64"}).data.size == (64, 64)
    assert load_experiment(None, {"data.size": 64}).data.size == (64, 64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.rate": 1}, "unknown key 'training.rate'; known keys are rounds, participation, epochs"),
        ({"trainin.lr": 1}, "unknown key 'trainin'; known keys are data, run, method"),
        ({"training.lr": -1}, "training.lr: input should be greater than 0, got -1"),
        ({"training.lr": float("nan")}, "training.lr: input should be"),
        ({"training.rounds": 0}, "training.rounds: input should be greater than or equal to 1, got 0"),
        ({"training.optimizer": "lbfgs"}, "training.optimizer: input should be 'sgd' or 'adam', got 'lbfgs'"),
        ({"network.norm": "layer"}, "network.norm: input should be 'batch-stats'"),
        ({"method.name": "fedex"}, "method must be one of fedavg"),
        ({"alpha": -1}, "rho must be a finite number of at least 0, got -1"),
        ({"beta": 1}, "harmofl has no hyperparameter 'beta'"),
        ({"data.folder": None}, "data.folder must be the path of a folder, as text, got None"),
        ({"data.folder": 5}, "data.folder must be the path of a folder, as text, got 5"),
        ({"data.size": [32]}, "data.size must be two whole numbers, height and width, such as [256, 256], got [32]"),
        (
            {"data.size": [32, "a"]},
            "data.size must be two whole numbers, height and width, such as",
        ),
        ({"data.size": [1, 2, 3]}, "data.size must be two whole numbers"),
        (
            {"data.unseen": 1},
            'data.unseen must be a list of names of sites, such as ["site-1"], got',
        ),
        ({"data.sites": []}, "data.sites must be a list of names of sites"),
        ({"network.options": "{f:2}"}, "network.options must be a table, such as {features = 8}, got '{f:2}'"),
        ({"run.name": "a/b"}, "run.name must be a name without slashes, got 'a/b'"),
        ({"run.device": "gpu"}, "run.device must be cpu, auto, mps, cuda or cuda:NUMBER, got 'gpu'"),
        ({"training.rounds": "two"}, "training.rounds must be a whole number, got 'two'"),
        ({"training.rounds": 1.5}, "training.rounds must be a whole number, got 1.5"),
        ({"training.lr": "fast"}, "training.lr must be a number, got 'fast'"),
        ({"run.diagnostics": "maybe"}, "run.diagnostics must be true or false, got 'maybe'"),
        ({"data.source": 3}, "data.source must be text, got 3"),
        ({"data.cache": ""}, "data.cache: must name a folder, got ''"),
    ],
)
def test_bad_values_are_one_line(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_experiment(None, {"data.folder": "x"} | changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("", {"method.name": "fedprox:mu=-1"}, "--method fedprox:mu=-1: mu must be a finite number of at least 0"),
        ("", {"method.name": "fedex"}, "--method fedex: method must be one of"),
        ("", {"method.name": "fedprox", "run.seed": 1, "mu": -1}, "--set mu=-1: mu must be"),
        ("", {"training.rounds": 0}, "--rounds 0: training.rounds: input should be"),
        ("[method]\nname = 'fedprox'\nmu = -1", {"run.seed": 1}, "{path}: mu must be"),
        ("[method]\nname = 'fednova+median'", {"run.seed": 1}, "{path}: fednova must average"),
        ("[method]\nname = 'fedprox:mu=1'\nmu = 2", {}, "{path}: mu must be given once, got 1 in 'fedprox:mu=1' and 2"),
        ("", {"method.name": "fedprox:mu=1", "method.mu": 2}, "--set method.mu=2: mu must be given once, got 1 in"),
        ("method = 'fedprox'", {}, "{path}: method must be a table, got 'fedprox'; set one of"),
        (
            "training = 3",
            {},
            "{path}: training must be a table, got 3; set one of its values, such as training.lr=0.01",
        ),
    ],
)
def test_errors_name_their_source(text: str, changes: dict, message: str, tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_experiment(path, changes)
    assert str(error.value).startswith(message.replace("{path}", str(path)))
    assert "\n" not in str(error.value)


def test_an_option_replaces_the_value_in_a_name(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text("[method]\nname = 'fedprox:mu=1'")
    assert load_experiment(tmp_path / "experiment.toml", {"mu": 2}).method_table == {"name": "fedprox", "mu": 2}


def test_missing_data_says_how_to_give_it() -> None:
    experiment = load_experiment(None, {})
    with pytest.raises(ConfigError, match=r"data\.folder is missing"):
        check_data(experiment.data)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration"):
        load_experiment(tmp_path / "none.toml", {})
    (tmp_path / "bad.toml").write_text("[run\n")
    with pytest.raises(ConfigError, match="must be a TOML file"):
        load_experiment(tmp_path / "bad.toml", {})


def test_setting_without_equals_sign() -> None:
    with pytest.raises(ConfigError, match="--set takes key=value"):
        parse_settings(["alpha"])


@pytest.mark.parametrize(("workers", "threads"), [(1, 4), (2, 2), (3, 1), (8, 1), (0, 4)])
def test_cores_are_shared_out_among_processes(workers: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmofl.utils.hardware.available_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for given, expected in ((0, threads), (3, 3)):
        experiment = load_experiment(None, {"data.folder": "x", "run.workers": workers, "run.threads": given})
        assert resolved(experiment, "classification").run.threads == expected
