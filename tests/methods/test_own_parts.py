"""Parts of a user's own in every method, by dotted name and by entry point."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from experiments import small
from toys import assert_same, toy_training, train

from harmofl.comparison.variants import parse_variants
from harmofl.errors import ConfigError, HarmoFLError
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.trained_model import TrainedModel
from harmofl.experiment.trainer import run
from harmofl.inference.export.exporting import export_model
from harmofl.inference.export.graph import images_like
from harmofl.methods import FedAvg, hyperparameters_of, make_method, plugins
from harmofl.methods.parts.averages import Average, Mean
from harmofl.methods.parts.normalizers import Normalizer
from harmofl.methods.parts.steps import SAM, Step
from harmofl.spectral.amplitude import AmplitudeNorm

HERE = "test_own_parts"


@dataclass(frozen=True, kw_only=True)
class Level(Normalizer):
    """The twin of `amplitude:band=0`."""

    ranges: ClassVar[dict[str, str]] = {"momentum": "[0, 1]"}
    momentum: float = 0.1

    def layer(self) -> AmplitudeNorm:
        return AmplitudeNorm(0, self.momentum)


@dataclass(frozen=True, kw_only=True)
class Uphill(SAM):
    """The twin of `sam`, of another length."""

    rho: float = 0.2


@dataclass(frozen=True, kw_only=True)
class First(Mean):
    """The first site alone."""

    def __call__(self, arrays, shares, before, params):
        return dict(arrays[0])


@dataclass(frozen=True, kw_only=True)
class Params(Mean):
    """The mean of the params alone."""

    def __call__(self, arrays, shares, before, params):
        return {
            name: value for name, value in super().__call__(arrays, shares, before, params).items() if name in params
        }


@dataclass(frozen=True, kw_only=True)
class Nothing(Mean):
    """It forgets to average."""

    def __call__(self, arrays, shares, before, params):
        return {}


@dataclass(frozen=True, kw_only=True)
class Flat(Mean):
    """It changes the shapes."""

    def __call__(self, arrays, shares, before, params):
        return {name: value.flatten() for name, value in arrays[0].items()}


@dataclass(frozen=True, kw_only=True)
class NoStep(FedAvg):
    """Its server forgets the weights."""

    def server_step(self, server, averaged, updates):
        return {}, {}


@dataclass(frozen=True, kw_only=True)
class NotANorm(Normalizer):
    """Its layer is none of this package."""

    def layer(self):
        return torch.nn.Identity()


class Centred(AmplitudeNorm):
    def forward(self, x):
        return x - x.mean(dim=(-2, -1), keepdim=True)


@dataclass(frozen=True, kw_only=True)
class Centre(Normalizer):
    """The normalizer of docs/library.md."""

    def layer(self):
        return Centred()


@dataclass(frozen=True, kw_only=True)
class Clash(SAM):
    """It has a hyperparameter of FedProx."""

    mu: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Banded(Normalizer):
    """Its hyperparameters have names that older versions used otherwise."""

    band: float = 0.3
    reference: float = 1.0
    alpha: float = 1.0

    def layer(self) -> None:
        return None


@dataclass(frozen=True, kw_only=True)
class Plain(Step):
    """Its class has the name of a part of the package."""

    def gradient(self, method, client, batch):
        return method.backward(client, batch)


@dataclass(frozen=True, kw_only=True)
class WithOwnPlain(FedAvg):
    """A method whose default part is its own."""

    step: Step = Plain()


class Bare(Step):
    """It lacks the decorator."""

    length: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Needy(Step):
    """A field has no default."""

    length: float


@dataclass(frozen=True, kw_only=True)
class Layerless(Normalizer):
    """It defines no layer."""


@dataclass(frozen=True, kw_only=True)
class NeedyLayer(Normalizer):
    """Its layer needs an argument."""

    def layer(self, channels):
        return Centred()


@dataclass(frozen=True, kw_only=True)
class Stepless(Step):
    """It defines no gradient."""


@dataclass(frozen=True, kw_only=True)
class Forgetful(Step):
    """Its gradient takes no method."""

    def gradient(self, client, batch):
        return client.loss(batch)


@dataclass(frozen=True, kw_only=True)
class Silent(Step):
    """Its gradient returns nothing."""

    def gradient(self, method, client, batch):
        method.backward(client, batch)


@dataclass(frozen=True, kw_only=True)
class Uncalled(Average):
    """It cannot be called."""


@dataclass(frozen=True, kw_only=True)
class Arrays(Mean):
    """Its averages are NumPy's."""

    def __call__(self, arrays, shares, before, params):
        return {name: value.numpy() for name, value in arrays[0].items()}


@dataclass(frozen=True, kw_only=True)
class NoObjective(FedAvg):
    """It minimizes nothing."""

    def objective(self, client, batch):
        client.loss(batch)


@dataclass(frozen=True, kw_only=True)
class Vector(FedAvg):
    """Its objective is no single number."""

    def objective(self, client, batch):
        return client.network(batch.images)


@dataclass(frozen=True, kw_only=True)
class NoAggregate(FedAvg):
    """It forgets the server state."""

    def aggregate(self, server, updates):
        super().aggregate(server, updates)


@dataclass(frozen=True, kw_only=True)
class GradientFree(Step):
    """It forgets the gradient."""

    def gradient(self, method, client, batch):
        return client.loss(batch).detach()


@dataclass(frozen=True, kw_only=True)
class Backless(FedAvg):
    """Its step has no backward pass."""

    def local_step(self, client, batch):
        client.step()
        return client.loss(client.normalized(batch)).detach()


@dataclass(frozen=True, kw_only=True)
class Standing(FedAvg):
    """It computes a gradient and takes no step."""

    def local_step(self, client, batch):
        return self.backward(client, client.normalized(batch))


@dataclass(frozen=True, kw_only=True)
class ByHand(FedAvg):
    """It takes its steps without the optimizer."""

    def local_step(self, client, batch):
        loss = client.loss(client.normalized(batch))
        for param, g in zip(client.params, torch.autograd.grad(loss, client.params), strict=True):
            param.data.sub_(g, alpha=0.1)
        return loss.detach()


@dataclass(frozen=True, kw_only=True)
class Collecting(FedAvg):
    """It only looks at the images in round 1."""

    def local_step(self, client, batch):
        if client.broadcast.round > 1:
            return super().local_step(client, batch)
        return client.loss(client.normalized(batch)).detach()

    def report(self, client):
        return {}, {"seen": {"images": torch.tensor(len(client.site.train))}}


@dataclass(frozen=True, kw_only=True)
class ArrayReport(FedAvg):
    """What it keeps is NumPy's."""

    def report(self, client):
        return {}, {"mine": {"x": client.params[0].detach().numpy()}}


@dataclass(frozen=True, kw_only=True)
class Correcting(FedAvg):
    """It takes no client."""

    def correct(self):
        pass


@dataclass(frozen=True, kw_only=True)
class RoleInWords(FedAvg):
    """Its roles are strings."""

    def role(self, model, name):
        return "local"


class Gone(AmplitudeNorm):
    def forward(self, x):
        x - 1


class Halved(AmplitudeNorm):
    def forward(self, x):
        return x[..., ::2, ::2]


class Wide(AmplitudeNorm):
    def forward(self, x):
        return x.double()


@dataclass(frozen=True, kw_only=True)
class Widen(Normalizer):
    """Its layer changes the type."""

    def layer(self):
        return Wide()


@dataclass(frozen=True, kw_only=True)
class Vanish(Normalizer):
    """Its layer returns nothing."""

    def layer(self):
        return Gone()


@dataclass(frozen=True, kw_only=True)
class Halve(Normalizer):
    """Its layer changes the size."""

    def layer(self):
        return Halved()


@dataclass(frozen=True, kw_only=True)
class Typed(FedAvg):
    """Its fields have types and no ranges."""

    number: float = 1
    count: int = 1
    switch: bool = False
    word: str = "a"
    loose: int | None = None
    odd: float = None  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class Dots(FedAvg):
    """Its ranges have another notation."""

    ranges: ClassVar[dict[str, str]] = {"mu": "0..1"}
    mu: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Misnamed(FedAvg):
    """Its ranges are of no field."""

    ranges: ClassVar[dict[str, str]] = {"mux": "[0, inf)"}
    mu: float = 0.1


def test_values_are_of_the_type_of_a_field_without_ranges() -> None:
    values = {"number": 3, "count": -2, "switch": True, "word": "any 1", "loose": None, "odd": "x"}
    assert hyperparameters_of(make_method(f"{HERE}.Typed", values)).items() >= values.items()
    for name, value, must in (
        ("number", "abc", "a finite number"),
        ("number", True, "a finite number"),
        ("count", 1.5, "a whole number"),
        ("switch", 1, "true or false"),
        ("word", 5, "any text"),
    ):
        with pytest.raises(ConfigError, match=f"^{name} must be {must}, got {value!r}"):
            make_method(f"{HERE}.Typed", {name: value})
        with pytest.raises(ConfigError, match=f"^{name} must be {must}, got {value!r}"):
            Typed(**{name: value})


def test_names_of_older_versions_are_free_for_own_parts() -> None:
    method = make_method(f"fedavg+{HERE}.Banded", {"alpha": 0.5, "band": 0.7})
    assert method.normalize == Banded(band=0.7, alpha=0.5)
    assert make_method(f"fedavg+{HERE}.Banded", hyperparameters_of(method)) == method
    assert type(make_method(f"{HERE}.WithOwnPlain", {}).step) is Plain


def test_they_train_like_their_twins() -> None:
    for own, twin in (("Level:momentum=0.3", "amplitude:band=0:decay=0.3"), ("Uphill", "sam:rho=0.2")):
        one, other = make_method(f"fedprox+{HERE}.{own}", {}), make_method(f"fedprox+{twin}", {})
        assert_same(train(one, toy_training(one))[0].weights, train(other, toy_training(other))[0].weights)
    method = make_method(f"harmofl+{HERE}.First", {})
    server, _, updates = train(method, toy_training(method), rounds=1)
    assert torch.equal(server.weights["network.3.bias"], updates[0].weights["network.3.bias"])


def test_a_run_finds_them_again_also_in_processes(federation: Path, tmp_path: Path) -> None:
    settings = {"method__name": f"fedavg+{HERE}.Level+{HERE}.Uphill", "method__momentum": 0.3}
    for name, workers in (("one", 1), ("two", 2)):
        run(small(federation, **settings, training__rounds=1, run__workers=workers), tmp_path / name)
    one, two = (RunDir(tmp_path / name).load_model()[0] for name in ("one", "two"))
    assert_same(one, two)
    assert TrainedModel.open(tmp_path / "one").method == FedAvg(normalize=Level(momentum=0.3), step=Uphill())


def test_by_entry_point_and_in_a_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "entry_points", {"harmofl.parts": {"level": f"{HERE}.Level"}}.get)
    assert make_method("fedavg+level", {"momentum": 1}).normalize == Level(momentum=1)
    (variant,) = parse_variants("mine=fedavg+level:momentum=0.5")
    assert (variant.method, variant.changes) == ("fedavg+level", {"momentum": 0.5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"fedavg+{HERE}.Nothing", rf"{HERE}.Nothing: an average must return .* network.0.0.weight and 8 more; return"),
        (f"fedavg+{HERE}.Params", r"does not for network\.0\.1\.running_mean and 2 more; return one for each name"),
        (f"fedavg+{HERE}.Flat", r"a tensor of the same shape .* but does not for network\.0\.0\.weight and 2 more"),
        (f"{HERE}.NoStep", f"{HERE}.NoStep: server_step must return new weights, got none"),
        (f"fedavg+{HERE}.NotANorm", "NotANorm: layer.. must return a subclass of ImageNorm or None, got Identity"),
        (
            f"fedavg+{HERE}.Silent",
            rf"^{HERE}.Silent: gradient\(\) must return the loss, .*, got None; end it",
        ),
        (
            f"fedavg+{HERE}.Arrays",
            r"must return a tensor of the same shape .* network\.0\.0\.weight and 8 more; return",
        ),
        (f"{HERE}.NoObjective", rf"^{HERE}.NoObjective: objective\(\) must return the loss, .*, got None; end it"),
        (f"{HERE}.Vector", r"objective\(\) must return the loss, a tensor of one number, got \(4, 2\)"),
        (f"{HERE}.NoAggregate", rf"^{HERE}.NoAggregate: aggregate\(\) must return a ServerState, got None; end it"),
        (f"fedavg+{HERE}.GradientFree", r"^fedavg.*GradientFree: gradient\(\) must compute the gradient of the params"),
        (
            f"fedprox+{HERE}.GradientFree",
            r"gradient\(\) must compute .* call backward\(client, batch\) of",
        ),
        (f"ditto+{HERE}.GradientFree", r"gradient\(\) must compute the gradient of the params, but none has one"),
        (
            f"{HERE}.ArrayReport",
            r"mine of x must be a tensor after round 1 of .*, got ndarray; return torch",
        ),
        (
            f"{HERE}.RoleInWords",
            r"RoleInWords: role\(\) must return one of Role.SHARED, .*, got 'local' for network",
        ),
    ],
)
def test_own_code_that_would_train_nothing_is_refused(text: str, message: str) -> None:
    with pytest.raises(HarmoFLError, match=message) as error:
        method = make_method(text, {})
        train(method, toy_training(method), rounds=1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("function", "must"),
    [
        ("model", "a Module"),
        ("start", "a ServerState"),
        ("broadcast", "a Broadcast"),
        ("shares", "a list"),
        ("server_step", "a tuple of two dicts"),
        ("report", "a tuple of two dicts"),
        ("personal_weights", "a dict"),
        ("weights_for_new_site", "a dict"),
        ("remarks", "a list"),
    ],
)
def test_a_function_that_forgets_its_return_is_named(
    federation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, must: str
) -> None:
    def forgetful(self, *args):
        getattr(FedAvg, function)(self, *args)

    body = {function: forgetful, "__module__": HERE, "__qualname__": "Forgetting"}
    forgetting = dataclass(frozen=True, kw_only=True)(type("Forgetting", (FedAvg,), body))
    monkeypatch.setitem(globals(), "Forgetting", forgetting)
    message = rf"^{HERE}.Forgetting: {function}\(\) must return {must}, got None; end it with a return of one$"
    with pytest.raises(ConfigError, match=message):
        run(small(federation, method__name=f"{HERE}.Forgetting"), tmp_path / "run")


@pytest.mark.parametrize("method", [Backless(), Standing()])
def test_a_round_that_trains_nothing_is_refused(federation: Path, tmp_path: Path, method: FedAvg) -> None:
    settings = {"method__name": str(method), "network__norm": "instance"}
    message = rf"{method}: local_step\(\) must train, but round 1 changed nothing at site-1; call backward"
    with pytest.raises(ConfigError, match=message):
        run(small(federation, **settings), tmp_path / "run")


@pytest.mark.parametrize("method", [ByHand(), Collecting()])
def test_a_round_without_gradients_of_the_optimizer_may_train(method: FedAvg) -> None:
    assert train(method, toy_training(method), rounds=1)[0].round == 1


@pytest.mark.parametrize(
    ("part", "got"),
    [
        ("Vanish", r"forward\(\) of Gone .*, got None"),
        ("Halve", r"forward\(\) of Halved .*, got \("),
        ("Widen", r"forward\(\) of Wide must return a tensor of the type of its input, .*32, got torch.float64"),
    ],
)
def test_an_own_normalizer_returns_images(federation: Path, tmp_path: Path, part: str, got: str) -> None:
    with pytest.raises(ConfigError, match=f"^{HERE}.{part}: {got}"):
        run(small(federation, method__name=f"fedavg+{HERE}.{part}"), tmp_path / "run")


def test_an_own_normalizer_is_exported(federation: Path, tmp_path: Path) -> None:
    run(small(federation, method__name=f"fedavg+{HERE}.Centre", training__rounds=1), tmp_path / "run")
    trained = TrainedModel.open(tmp_path / "run")
    images = images_like(trained, 3)
    expected = trained.network()(images).softmax(dim=1)
    without = trained.network().get_submodule("network")(images).softmax(dim=1)
    assert not torch.allclose(expected, without, atol=1e-3)
    files, _ = export_model(tmp_path / "run", tmp_path / "out", ["pt2"])
    loaded = torch.export.load(files[0].path).module()
    torch.testing.assert_close(loaded(images), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"fedprox+{HERE}.Clash", "Clash and fedprox.* both have 'mu'; rename one"),
        (f"fedavg+{HERE}.Level:momentum=2", "momentum must be"),
        (f"fedavg+{HERE}.HERE", "must be a subclass of Normalizer, Step or Average"),
        (f"fedavg+{HERE}.Nowhere", "must be importable, got AttributeError: .*; define it in test_own_parts"),
        (f"fedavg+{HERE}.Levle", "must be importable, got AttributeError: .*; did you mean test_own_parts.Level"),
        (
            "no_such_module.Method",
            "got ModuleNotFoundError: No module named 'no_such_module'; install it or set PYTHON",
        ),
        (f"fedavg+{HERE}.Bare", "must be a @dataclass"),
        (f"fedavg+{HERE}.Needy", "length must have a default value"),
        (f"{HERE}.Dots", r"Dots: ranges must be as in '\[0, 1\) or off' or .*, got '0..1' for mu"),
        (f"{HERE}.Misnamed", "Misnamed: ranges must name fields, got 'mux'; its fields are mu$"),
        (f"fedavg+{HERE}.Layerless", rf"^{HERE}.Layerless: every Normalizer must define layer\(self\); define it so"),
        (f"fedavg+{HERE}.NeedyLayer", r"must define layer\(self\), got layer\(self, channels\); define it so"),
        (f"fedavg+{HERE}.Stepless", r"every Step must define gradient\(self, method, client, batch\); define it so"),
        (f"fedavg+{HERE}.Forgetful", r"gradient\(self, method, client, batch\), got gradient\(self, client, batch\)"),
        (f"fedavg+{HERE}.Uncalled", r"every Average must define __call__\(self, arrays, shares, before, params\)"),
        (f"{HERE}.Correcting", r"every FedAvg must define correct\(self, client\), got correct\(self\)"),
    ],
)
def test_what_does_not_hold_is_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        make_method(text, {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module", "No module named 'no_such_module'; mend broken_imports$"),
        ("class", r"SyntaxError: invalid syntax \(broken_imports.py, line 1\); mend broken_imports$"),
        ("1 / 0", "ZeroDivisionError: division by zero; mend broken_imports$"),
    ],
)
def test_why_a_file_cannot_be_imported_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    (tmp_path / "broken_imports.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=message):
        make_method("broken_imports.Method", {})
