import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ddpm.pipeline.console import UserError
from ddpm.pipeline.params import Section, Sections, load_params
from ddpm.sampling.samplers import SamplerParams
from ddpm.training.recipe import TrainParams
from scripts.check_params import AllParams, spanning_errors
from stages import forward_diffusion, preprocess, train
from stages.sample import SampleParams
from tests.pipeline.test_params_values import REMOVED, REPOSITORY, VALUES, changed, complaint, written


class Numbers(Section):
    lr: float


def test_a_dotted_section_is_loaded(tmp_path: Path) -> None:
    path = written(tmp_path, changed(("sample.gallery.count", 12), ("sample.population.count", 34)))
    assert load_params(SampleParams, "sample.gallery", path).count == 12
    assert load_params(SampleParams, "sample.population", path).count == 34


def test_a_section_names_its_errors_in_full(tmp_path: Path) -> None:
    path = written(tmp_path, changed(("sample.gallery.eta", 2), ("sample.gallery.typo", 1)))
    with pytest.raises(UserError) as caught:
        load_params(SampleParams, "sample.gallery", path)
    assert str(caught.value) == (
        f"{path}: 2 invalid\n"
        "  sample.gallery.eta: input should be less than or equal to 1, got 2\n"
        "  sample.gallery.typo: unknown key; remove it or mend its spelling"
    )


@pytest.mark.parametrize(
    ("dotted", "value"),
    [("sample.gallery", REMOVED), ("sample.gallery", None), ("sample", REMOVED), ("sample", None), ("sample", 5)],
)
def test_a_missing_section_is_named(dotted: str, value: Any, tmp_path: Path) -> None:
    path = written(tmp_path, changed((dotted, value)))
    with pytest.raises(UserError) as caught:
        load_params(SampleParams, "sample.gallery", path)
    assert (
        str(caught.value)
        == f"{path}: sample.gallery: missing; add it (params.yaml in the repository's history has the default)"
    )


@pytest.mark.parametrize("content", ["", "- 1\n"])
def test_a_section_of_no_mapping_is_missing(content: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match="sample: missing; add it"):
        load_params(SamplerParams, "sample", path)


def test_a_stage_minds_its_own_sections_alone(tmp_path: Path) -> None:
    path = written(tmp_path, changed(("evaluate.confidence", 5), ("download", REMOVED), ("other", 1)))
    assert load_params(train.Params, path=path).train.epochs == VALUES["train"]["epochs"]
    path = written(tmp_path, changed(("data", REMOVED)))
    with pytest.raises(UserError, match=r"1 invalid\n  data: missing"):
        load_params(preprocess.Params, path=path)


def test_a_stage_of_two_sections_reports_both(tmp_path: Path) -> None:
    path = written(tmp_path, changed(("schedule.timesteps", 0), ("forward_diffusion.images", 0)))
    with pytest.raises(UserError) as caught:
        load_params(forward_diffusion.Params, path=path)
    assert [line.split(": ")[0] for line in str(caught.value).split("\n")[1:]] == [
        "  schedule.timesteps",
        "  forward_diffusion.images",
    ]


def test_params_are_immutable() -> None:
    params = load_params(train.Params, path=REPOSITORY / "params.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        params.train.epochs = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        params.train = params.train  # type: ignore[misc]


def test_values_arrive_typed(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        changed(
            ("train.classes", [3, "T-shirt", "010"]),
            ("sample.population.classes", ["010"]),
            ("sample.gallery.steps", None),
            ("model.channels", [4, 8]),
            ("data.image_size", [48, 32]),
        ),
    )
    params = load_params(AllParams, path=path)
    assert params.train.classes == (3, "T-shirt", "010")
    assert params.sample.population.classes == ("010",)
    assert params.data.image_size == (48, 32)
    assert params.model.channels == (4, 8)
    assert params.sample.gallery.steps is None


def test_no_class_by_name_is_all_of_them() -> None:
    for section, values in ((TrainParams, VALUES["train"]), (SampleParams, VALUES["sample"]["gallery"])):
        assert section.model_validate_json(json.dumps({**values, "classes": "all"})).classes == ()


def test_sections_skip_what_is_not_theirs(tmp_path: Path) -> None:
    class Params(Sections):
        x: Numbers

    path = tmp_path / "params.yaml"
    path.write_text("x: {lr: 0.5}\ny: [1, 2]\n")
    assert load_params(Params, path=path).x.lr == 0.5


def test_errors_between_sections_are_reported_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = changed(
        ("schedule.timesteps", 10),
        ("forward_diffusion.timesteps", [0, 9, 10, 11]),
        ("sample.gallery.steps", 11),
        ("sample.population.steps", 10),
        ("sample.gallery.keep_every", 0),
        ("data.set", "data/fashion_mnist"),
        ("train.start", "models/ddpm.safetensors"),
    )
    path = written(tmp_path, wrong)
    assert complaint(path, monkeypatch).split("\n") == [
        f"{path}: 5 invalid",
        "  forward_diffusion.timesteps: [10, 11] must be below schedule.timesteps, 10",
        "  data.set: data/fashion_mnist is made only when download.sets has fashion_mnist",
        "  sample.gallery.steps: 11 must be at most schedule.timesteps, 10",
        "  sample.gallery.keep_every: the strip of pictures needs kept frames; set it to 1 or more",
        "  train.start: models/ddpm.safetensors is what training makes; copy it to data/, and `dvc add` the copy",
    ]


@pytest.mark.parametrize(
    ("changes", "early", "unlabelled"),
    [
        ([], "", "train.label_dropout is 0"),
        ([("train.label_dropout", 0.1)], "", ""),
        ([("train.early", 0)], "train.early is 0", "train.label_dropout is 0"),
        ([("train.early", 0), ("train.label_dropout", 0.1)], "train.early is 0", ""),
        ([("model.class_conditional", False)], "", "model.class_conditional is false"),
        (
            [("model.class_conditional", False), ("train.early", 0)],
            "train.early is 0",
            "model.class_conditional is false",
        ),
    ],
    ids=str,
)
def test_a_guide_is_one_that_the_training_makes(
    changes: list[tuple[str, Any]], early: str, unlabelled: str, tmp_path: Path
) -> None:
    given = [*changes, ("sample.gallery.guide", "early"), ("sample.population.guide", "unlabelled")]
    strengths = [("sample.gallery.guidance", 0), ("sample.population.guidance", 2.5)]
    expected = []
    if early:
        expected.append(f"sample.gallery.guidance: 0, but no guide early is made: {early}; set it to 1")
    if unlabelled:
        expected.append(f"sample.population.guidance: 2.5, but no guide unlabelled is made: {unlabelled}; set it to 1")
    path = written(tmp_path, changed(*given, *strengths))
    assert spanning_errors(load_params(AllParams, path=path)) == expected
    path = written(tmp_path, changed(*given, *((name, 1.0) for name, _ in strengths)))
    assert spanning_errors(load_params(AllParams, path=path)) == []


def test_labels_are_dropped_where_there_are_some(tmp_path: Path) -> None:
    path = written(tmp_path, changed(("model.class_conditional", False), ("train.label_dropout", 0.1)))
    assert spanning_errors(load_params(AllParams, path=path)) == [
        "train.label_dropout: there are no labels to drop where model.class_conditional is false; set 0"
    ]


def test_a_study_of_rare_classes_is_checked_where_there_is_one(tmp_path: Path) -> None:
    wrong = [("rare_draw.seed", 1), ("rare_draw.steps", 1001), ("train.classes", [7]), ("train.early", 0)]
    plain = [("sample.gallery.guidance", 1), ("sample.population.guidance", 1)]
    path = written(tmp_path, changed(*wrong, *plain))
    assert spanning_errors(load_params(AllParams, path=path)) == []
    path = written(tmp_path, changed(("cut.sets", ["50-0"]), ("rare_confirm.sets", ["50-1"]), *wrong, *plain))
    assert [error.partition(": ")[0] for error in spanning_errors(load_params(AllParams, path=path))] == [
        "rare_confirm.sets",
        "rare_draw.seed",
        "rare_draw.steps",
        "cut.sets",
        "rare_draw.guidance",
    ]


def test_classes_to_draw_are_among_those_that_the_model_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes = [("sample.gallery.classes", [3, 7]), ("sample.population.classes", [7])]
    path = written(tmp_path, changed(("train.classes", [1, 7]), *classes))
    assert complaint(path, monkeypatch).split("\n") == [
        f"{path}: 1 invalid",
        "  sample.gallery.classes: [3] must be among train.classes, [1, 7]",
    ]
    path = written(tmp_path, changed(("model.class_conditional", False), *classes[1:]))
    assert complaint(path, monkeypatch).split("\n") == [
        f"{path}: 1 invalid",
        "  sample.population.classes: must be all where model.class_conditional is false",
    ]


def test_a_distilled_model_is_made_and_draws_in_its_own_way(tmp_path: Path) -> None:
    def errors(*changes: tuple[str, Any]) -> list[str]:
        return spanning_errors(load_params(AllParams, path=written(tmp_path, changed(*changes))))

    source = ("sample.model", "models/distilled-4.safetensors")
    assert errors(source)[:1] == [
        "sample.model: models/distilled-4.safetensors is made by no stage; choose from models/ddpm.safetensors"
    ]
    assert errors(("sample.model", "data/other.safetensors")) == []
    made = (source, ("distill.steps", [4]), ("sample.gallery.guidance", 1.0))
    population = [(f"sample.population.{key}", value) for key, value in (("sampler", "ddpm"), ("steps", None))]
    assert errors(*made, *population, ("sample.population.guidance", 1.0)) == []
    assert errors(*made, *population) == ["sample.population.guidance: 1.3, but a distilled model has no guide; set 1"]
    assert errors(*made) == [
        "sample.population.sampler: a distilled model draws by ddpm with the posterior variance; set that"
    ]
    assert errors(("distill.steps", [4, 20]), ("schedule.timesteps", 20), ("forward_diffusion.timesteps", [0])) == []
    late = (("schedule.timesteps", 20), ("forward_diffusion.timesteps", [0]))
    assert errors(("distill.steps", [4, 21]), *late) == ["distill.steps: [21] must be at most schedule.timesteps, 20"]
    assert errors(("distill.steps", [4]), ("train.start", "models/distilled-4.safetensors")) == [
        "train.start: models/distilled-4.safetensors is what training makes; copy it to data/, and `dvc add` the copy"
    ]
