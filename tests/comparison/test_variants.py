"""Method specifications, settings swept, and what is planned for them."""

from pathlib import Path

import pytest
from experiments import small

from harmofl.comparison.plan import plan_jobs
from harmofl.comparison.sweep import parse_sweep, swept
from harmofl.comparison.variants import ABLATION, Variant, parse_variants, read_tuned, with_common
from harmofl.errors import ConfigError
from harmofl.methods import METHODS, make_method, search_space


def test_a_specification_has_label_name_and_settings() -> None:
    plain, set_, labelled, both = parse_variants(
        "fedavg, fedprox:mu=0.1,strong=fedprox:mu=1,x=fedprox+sam:rho=0.1:training.lr=1"
    )
    assert plain == Variant("fedavg", "fedavg")
    assert set_ == Variant("fedprox:mu=0.1", "fedprox", {"mu": 0.1})
    assert labelled == Variant("strong", "fedprox", {"mu": 1})
    assert both == Variant("x", "fedprox+sam", {"rho": 0.1, "training.lr": 1})


def test_tuned_settings_hold_unless_the_specification_says_otherwise(tmp_path: Path) -> None:
    (tmp_path / "tuned.toml").write_text('[fedprox]\n"method.mu" = 0.3\n"training.lr" = 0.02\n')
    tuned = read_tuned(tmp_path / "tuned.toml")
    one, other = parse_variants("fedprox,own=fedprox:method.mu=1", tuned)
    assert one.changes == {"mu": 0.3, "training.lr": 0.02}
    assert other.changes == {"mu": 1, "training.lr": 0.02}


def test_labels_in_any_script_and_of_any_length_are_folders() -> None:
    short, one, other = parse_variants(f"\u65e5\u672c/x=fedavg,{'a' * 300}=fedavg,{'a' * 299}=fedsam")
    assert short.folder == "\u65e5\u672c_x"
    assert one.folder != other.folder
    assert max(len(one.folder), len(other.folder)) < 60


SAME = "must be the same for all|must not be set for a method|must be given once"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs at least one method"),
        ("fedex", "method must be one of .* got 'fedex'"),
        ("fedprox:mu", "given as name:key=value"),
        ("fedavg,fedavg", "'fedavg' must be given once, got it twice; give one another label, such as a=fedavg$"),
        ("a=fedavg,a=fedprox:mu=1", "'a' must be given once, got it twice; .*, such as b=fedprox:mu=1$"),
        ("a b=fedavg,a_b=fedsam", "'a b' and 'a_b' must have different folders"),
        ("=fedavg", "a label must be one line of text"),
        ("a\nb=fedavg", "a label must be one line of text"),
        *(
            (f"{name}=fedavg", f"must not be the name of a file of the comparison, got {name}")
            for name in ("report-files", "report.html", "comparison.png", "sweep.csv")
        ),
        ("table.md=fedavg", "must not be the name of a file of the comparison, got table.md"),
        *((text, SAME) for text in ("x=fedavg:evaluation.metric=accuracy", "fedprox:method.name=fedavg")),
        *((text, SAME) for text in ("x=fedprox:name=fedavg", "fedavg:run.seed=5", "fedavg:data.folder=y")),
        ("fedavg:network.norm=group", SAME),
    ],
)
def test_specifications_that_do_not_hold(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_variants(text)


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        (None, r"must be the tuned\.toml"),
        ("mu = 3\n", "tables, one per method"),
        ("[fedavg]\n[data]\n", r"table \[data\] must be a method or a label"),
        ("[fedprox]\nmu = 1\n", "must have a table for one of --methods, got fedprox"),
    ],
)
def test_the_files_of_search_are_checked(tuned: str | None, message: str, tmp_path: Path) -> None:
    if tuned is not None:
        (tmp_path / "tuned.toml").write_text(tuned)
    with pytest.raises(ConfigError, match=message):
        parse_variants("fedavg", read_tuned(tmp_path / "tuned.toml"))


def test_only_the_method_differs(federation: Path, tmp_path: Path) -> None:
    """The same network, training, data, split and seed; hyperparameters in the file hold for their own method."""
    base = small(federation, method__name="fedprox", method__mu=0.5)
    jobs = plan_jobs(base, parse_variants("fedavg,fedprox,harmofl"), range(2), tmp_path)
    expected = [("fedavg", 0), ("fedprox", 0), ("harmofl", 0), ("fedavg", 1)]
    assert [(job.variant.label, job.seed) for job in jobs[:4]] == expected
    tables = [{"name": "fedavg"}, {"name": "fedprox", "mu": 0.5}, {"name": "harmofl"}]
    assert [job.experiment.method_table for job in jobs[:3]] == tables
    for job in jobs:
        rest = job.experiment.model_dump(exclude={"method_table"})
        assert rest["network"] == base.network.model_dump()
        assert rest["training"] == base.training.model_dump()
        assert rest["data"]["split_seed"] == 0
        assert rest["run"]["seed"] == job.seed
    assert len({job.folder for job in jobs}) == 6


def test_equal_gradients_divides_the_rounds(federation: Path, tmp_path: Path) -> None:
    base = small(federation, training__rounds=11)
    jobs = plan_jobs(
        base, parse_variants("fedavg,fedsam,fedlesam,harmofl:rho=0,ditto+sam"), [0], tmp_path, equal="gradients"
    )
    assert [job.experiment.training.rounds for job in jobs] == [11, 5, 11, 11, 2]
    with pytest.raises(ConfigError, match="--equal must be rounds or gradients"):
        plan_jobs(base, parse_variants("fedavg"), [0], tmp_path, equal="time")  # type: ignore[arg-type]


def test_sites_are_left_out_in_turn_where_there_is_a_common_model(federation: Path, tmp_path: Path) -> None:
    jobs = plan_jobs(
        small(federation), parse_variants("fedavg,local,pooled"), [0], tmp_path, left_out=["site-1", "site-2"]
    )
    expected = [(method, site) for method in ("fedavg", "pooled") for site in ("site-1", "site-2")]
    assert [(job.variant.label, job.left_out) for job in jobs] == expected
    assert jobs[0].experiment.data.unseen == ("site-1",)


def test_a_bad_hyperparameter_is_said_with_its_method(federation: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"method weak: .*mu must be"):
        plan_jobs(small(federation), parse_variants("weak=fedprox:mu=-1"), [0], tmp_path)
    with pytest.raises(ConfigError, match="fedavg has no hyperparameter 'rho'"):
        plan_jobs(small(federation), parse_variants("fedavg:rho=1"), [0], tmp_path)


def test_privacy_and_training_may_differ() -> None:
    (variant,) = parse_variants("quiet=fedavg:privacy.clip=1:training.updates=bfloat16")
    assert variant.changes == {"privacy.clip": 1, "training.updates": "bfloat16"}


@pytest.mark.parametrize("over", ["method.name=fedavg,harmofl", "run.seed=1,2", "evaluation.metric=dice,iou"])
def test_a_sweep_is_over_settings_that_can_be_compared(over: str, federation: Path) -> None:
    with pytest.raises(ConfigError, match=SAME):
        swept(small(federation), parse_variants("fedavg"), *parse_sweep(over))


def test_common_hyperparameters_go_to_every_method_that_uses_them() -> None:
    found = with_common(parse_variants("fedavg,fedsam,harmofl,own=harmofl:rho=0.3"), {"method.rho": 0.9})
    settings = [variant.settings({}) for variant in found]
    assert [s.get("method.rho") for s in settings] == [None, 0.9, 0.9, 0.3]
    assert [v.changes for v in with_common(parse_variants("fedavg,fedprox"), {"mu": 1})] == [{}, {"mu": 1}]
    with pytest.raises(ConfigError, match="must have this hyperparameter, got fedavg, fedsam"):
        with_common(parse_variants("fedavg,fedsam"), {"method.mu": 1})
    parts = with_common(parse_variants(",".join(ABLATION)), {"rho": 0.5})
    assert [v.settings({}).get("method.rho") for v in parts] == [None, None, 0.5, 0.5]


def test_commas_in_brackets_and_values_written_twice() -> None:
    (variant,) = parse_variants("x=feddg:window=0.1:training.loss=dice")
    assert variant.changes == {"window": 0.1, "training.loss": "dice"}
    found = parse_variants('a=fedavg+sam:params_regex="up,head",fedavg')
    assert [v.changes for v in found] == [{"params_regex": "up,head"}, {}]
    assert parse_sweep("network.options={blocks=[2,2]},{blocks=[2,3]}")[1] == {
        "{blocks=[2,2]}": {"blocks": [2, 2]},
        "{blocks=[2,3]}": {"blocks": [2, 3]},
    }
    assert parse_sweep("method.rho=0.1,0.10,1e-1,0.2")[1] == {"0.1": 0.1, "0.2": 0.2}


def test_the_ablation_takes_one_part_at_a_time() -> None:
    found = [(v.method, dict(v.changes)) for v in parse_variants(",".join(ABLATION))]
    assert found == [("fedavg", {}), ("fedavg+amplitude", {}), ("fedavg+sam", {}), ("fedavg+amplitude+sam", {})]


def test_every_span_of_the_search_is_of_a_hyperparameter() -> None:
    for name, method in METHODS.items():
        for key, (low, high) in search_space(method).items():
            make_method(name, {key: low}), make_method(name, {key: high})
            assert 0 < low < high, (name, key)


def test_a_sweep_crosses_methods_and_values(federation: Path) -> None:
    key, values = parse_sweep("method.rho=0.5,0.05")
    lines = swept(small(federation), parse_variants("fedsam,harmofl"), key, values)
    expected = [[f"{method} method.rho={rho}" for rho in ("0.5", "0.05")] for method in ("fedsam", "harmofl")]
    assert [[v.label for v in line] for line in lines] == expected
    assert lines[1][0].changes == {"method.rho": 0.5}


def test_a_sweep_over_the_number_of_sites(federation: Path) -> None:
    key, values = parse_sweep("sites=1,2")
    ((one, two),) = swept(small(federation), parse_variants("fedavg"), key, values)
    assert (one.changes, two.changes) == ({"data.sites": ("site-1",)}, {"data.sites": ("site-1", "site-2")})
    with pytest.raises(ConfigError, match="numbers from 1 to 2, got 3"):
        swept(small(federation), parse_variants("fedavg"), *parse_sweep("sites=1,3"))


@pytest.mark.parametrize("text", ["method.rho", "method.rho=1", "method.rho=1,1.0", "", "=1,2"])
def test_sweeps_that_do_not_hold(text: str) -> None:
    with pytest.raises(ConfigError, match="--over must be a key with two or more values"):
        parse_sweep(text)
