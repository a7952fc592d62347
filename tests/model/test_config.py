"""Sizes: the closed formula counts what is there, to the unit, and every preset fits with its calibration."""

import itertools
import json
from typing import Any

import pytest

from edgeseq_core.model.calibration import Calibration, CalibrationConfig
from edgeseq_core.model.config import PRESETS, ModelConfig, one_wide_ffn, preset
from edgeseq_core.model.edgeformer import EdgeFormer
from edgeseq_core.text.vocabulary import Vocabulary

TEN_MILLION = 10_000_000
LARGEST = Vocabulary(chr(0x4E00 + at) for at in range(1_000))  # what pretraining makes at most

TINY = {"vocabulary_size": 270, "d_model": 32, "heads": 4, "encoder_ffn": 48, "decoder_ffn": 8}
GROUPS: tuple[dict[str, Any], ...] = (
    {},
    {"group_heads": (4, 2, 4, 2, 2, 4)},
    {"group_ffn": (40, 24, 16, 8, 4)},
    {"group_heads": (2, 2, 4, 4, 2, 4), "group_ffn": (8, 48, 8, 16, 24)},
)
ADAPTATIONS = (("bias", 0), ("adapter", 3), ("prefix", 5))
DEPTHS = ((1, 1, 4, 2), (3, 1, 2, 1), (5, 2, 4, 2), (4, 2, 6, 3))


def cut_to(groups: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """As many groups as the fields ask for."""
    ffns, layers = fields["ffn_groups"], fields["decoder_layers"]
    of_ffns = groups.get("group_ffn", ())
    return {
        "group_heads": groups.get("group_heads", ())[: fields["attention_groups"]],
        "group_ffn": (*of_ffns[:ffns], *of_ffns[2 : 2 + layers]),
    }


def count(config: ModelConfig) -> int:
    return sum(p.numel() for p in EdgeFormer(config).parameters())


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("adaptation", ADAPTATIONS)
def test_count_equals_the_closed_formula(
    adaptation: tuple[str, int], depth: tuple[int, int, int, int]
) -> None:
    names = ("encoder_layers", "decoder_layers", "attention_groups", "ffn_groups")
    fields = TINY | dict(zip(names, depth, strict=True))
    kind, size = adaptation
    choices = itertools.product(
        ("vocabulary", "copy"), (0, 1, 2), ("pre-rms", "post-layer"), ("rotary", "linear"), GROUPS
    )
    for output, key_heads, norm, positions, groups in choices:
        if "group_heads" in groups and positions == "linear":
            continue  # refused
        config = ModelConfig(
            **fields,  # type: ignore[arg-type]
            adaptation=kind,  # type: ignore[arg-type]
            adaptation_size=size,
            output=output,  # type: ignore[arg-type]
            key_heads=key_heads,
            norm=norm,  # type: ignore[arg-type]
            positions=positions,  # type: ignore[arg-type]
            **cut_to(groups, fields),
        )
        for one in (config, one_wide_ffn(config)):
            assert count(one) == one.parameters, one


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_preset_and_a_calibration_of_all_its_layers_are_under_ten_million(name: str) -> None:
    config = preset(name, vocabulary_size=len(LARGEST), output="copy")
    model = EdgeFormer(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters
    depth = CalibrationConfig(encoder_layers=config.encoder_layers)
    calibration = Calibration(model, LARGEST, depth)
    calibration.admit(map(chr, range(0x400, 0x800)))  # more symbols than may have an own row
    assert len(calibration.rows) == 512
    assert config.parameters + calibration.numbers < TEN_MILLION


def test_the_papers_shape_has_the_papers_size() -> None:
    """12+2 layers, d = 512, post-norm: 8.70 M without adaptation, 9.4 M by the README with rank 32."""
    paper = preset(
        "512",
        vocabulary_size=2_000,
        encoder_ffn=2048,
        norm="post-layer",
        adaptation="adapter",
        adaptation_size=32,
    )
    attentions = 4 * 4 * (512**2 + 512)
    ffns = 2 * (2 * 512 * 2048 + 2048 + 512) + 2 * (2 * 512 * 128 + 128 + 512)
    norms = (2 * 12 + 3 * 2) * 2 * 512
    adapters = 12 * 2 * 2 * 512 * 32
    task = 5 * 512
    assert attentions + ffns + norms == 8_696_064
    assert paper.core_parameters == attentions + ffns + norms + adapters + task
    assert paper.parameters == paper.core_parameters + 2_000 * 513


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 3}, "multiple of 4"),
        ({"attention_groups": 3}, "borrows"),
        ({"key_heads": 3}, "multiple of key_heads"),
        ({"adaptation": "adapter"}, "adaptation_size"),
        ({"adaptation_size": 4}, "adaptation_size"),
        ({"group_heads": (4, 4, 4)}, "each attention group"),
        ({"group_heads": (4, 4, 4, 0)}, "at most heads"),
        ({"group_heads": (4, 4, 4, 5)}, "at most heads"),
        ({"group_heads": (4, 4, 4, 1), "key_heads": 2}, "whole shares"),
        ({"group_heads": (4, 4, 4, 2), "positions": "linear"}, "number decides"),
        ({"group_heads": (4, 4, 4, 2), "decoder_mixer": "retention"}, "number decides"),
        ({"group_ffn": (8, 8)}, "a decoder layer"),
        ({"group_ffn": (8, 8, 8, 0)}, "or none has"),
        (
            {"adaptation": "prefix", "adaptation_size": 4, "encoder_mixer": "retention"},
            "attention in the encoder",
        ),
    ],
)
def test_shapes_that_cannot_be_built_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**TINY | wrong)  # type: ignore[arg-type]


def test_a_config_comes_back_from_json() -> None:
    config = ModelConfig(**TINY | {"group_heads": (4, 3, 2, 1), "group_ffn": (40, 48, 8, 4)})  # type: ignore[arg-type]
    assert ModelConfig(**json.loads(json.dumps(config.to_json()))) == config
