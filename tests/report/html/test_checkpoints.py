from dataclasses import replace

from leakcheck.findings import Verdict
from leakcheck.report.html import render
from leakcheck.report.html.flowchart import phases
from leakcheck.report.html.unfolded import unfold

from ..documents import DOCUMENTS, checkpoint, method1_checkpoints
from .reading import read

IDS = ("eager/none/eval", "sdpa/none/eval", "sdpa/none/train")


def test_every_layer_under_every_configuration_can_be_unfolded():
    checkpoints = [
        checkpoint(5, "standard", layer, id, output_delta=1.0 + layer + number / 10)
        for layer in range(3)
        for number, id in enumerate(IDS)
    ]
    stage = unfold(checkpoints)[5]
    assert stage.extent == "3 layers, 3 configurations"
    assert [(row.layers, row.configurations, *row.cells) for row in stage.rows] == [
        (f"L{layer}", id, "PROVEN", "+0", f"{1 + layer + number / 10:.2g}", "")
        for layer in range(3)
        for number, id in enumerate(("eager", "sdpa/none/eval", "sdpa/none/train"))
    ]


def test_what_is_the_same_shares_a_row():
    checkpoints = method1_checkpoints(IDS, IDS[1:])
    stages = unfold(checkpoints)
    assert [(row.layers, row.configurations) for row in stages[1].rows] == [("", "all 3 configurations")]
    assert [(row.layers, row.configurations) for row in stages[12].rows] == [("L1-2", "eager"), ("L1-2", "sdpa")]
    assert [(row.layers, row.configurations) for row in stages[8].rows] == [
        (f"L{layer}", attention) for layer in range(3) for attention in ("eager", "sdpa")
    ]


def test_both_paths_stand_beside_each_other():
    first, second = unfold(method1_checkpoints(IDS, IDS[1:]))[8].rows[:2]
    assert first.cells == ("PROVEN", "+0", "0", "", "PROVEN", "+0", "0", "")
    assert second.cells == ("LEAK", "+12", "4.5", "", "CONTAMINATED", "+12", "4.5", "")
    assert first.remarks == ()
    assert second.remarks == ("standard, recompute: position 0 moved by tokens from 1 on, local 1.2, gradient 2.2",)


def test_a_stage_that_one_path_lacks_leaves_its_cells_empty():
    (row, *_) = unfold(method1_checkpoints(IDS))[9].rows
    assert row.cells == ("", "", "", "", "PROVEN", "+0", "0", "")


def test_the_gravest_of_several_runs_under_one_name_is_shown():
    twice = [
        checkpoint(5, "standard", 0, "a"),
        checkpoint(5, "standard", 0, "a", verdict=Verdict.LEAK, output_delta=2.0),
    ]
    assert [row.cells for row in unfold(twice)[5].rows] == [("LEAK", "+0", "2", "")]


def test_each_stage_of_the_page_unfolds_its_own_rows():
    document = DOCUMENTS["leak"]
    page = read(render(document))
    stages = unfold(document.checkpoints)
    buttons = page.find("button", kind="fold")
    assert [button.text() for button in buttons] == [str(number) for number in range(1, 15)]
    for button in buttons:
        (below,) = page.find(id=button.attributes["aria-controls"])
        rows = stages[int(button.text())].rows
        assert [row.find("th")[0].text() for row in below.find("tr", kind="layer")] == [row.layers for row in rows]
        assert button.attributes["aria-label"] == f"Stage {button.text()}: {stages[int(button.text())].extent}"


def test_the_data_flow_has_a_verdict_at_each_node():
    page = read(render(DOCUMENTS["leak"]))
    (flow,) = page.find("div", kind="flow")
    told = {node.find("span", kind="number")[0].text(): node.find("span", kind="badge") for node in flow.find("a")}
    assert {stage: [badge.text() for badge in badges] for stage, badges in told.items()} == {
        "1-2": ["PROVEN"],
        "3-4": [],
        "5-6": ["LEAK"],
        "7": ["LEAK"],
        "8": ["LEAK"],
        "9-10": ["CONTAMINATED"],
        "11": ["PROVEN"],
        "12": ["PROVEN"],
        "13": ["CONTAMINATED"],
        "14": ["CONTAMINATED"],
    }
    lanes = {lane.find("span", kind="title")[0].text(): lane for lane in flow.find("div", kind="lane")}
    assert [node.attributes["href"] for node in lanes["standard"].find("a")] == ["#stage-5", "#stage-7", "#stage-8"]
    assert [node.attributes["href"] for node in lanes["recompute"].find("a")] == ["#stage-9", "#stage-11", "#stage-12"]


def test_a_model_without_a_trace_is_drawn_by_its_stages_in_order():
    (layers,) = phases(DOCUMENTS["generic"].checkpoints)
    assert layers.name == "layers"
    assert [(node.numbers, node.name, node.beside, node.cells) for node in layers.nodes] == [
        ("1-21", "backbone.layers.0 … backbone.layers.20", "MixerBlock.forward", ("OPEN", "+0")),
        ("22-40", "backbone.layers.21 … backbone.layers.39", "MixerBlock.forward", ("OPEN", "?")),
    ]


def test_a_node_without_a_tensor_is_named_by_its_function():
    branch = checkpoint(4, "standard", None, "a")
    output = replace(checkpoint(13, "standard", 0, "a"), module="")
    (distribution, merge) = phases([branch, output])
    assert [(n.name, n.beside) for n in distribution.nodes] == [("Method1LlamaModel_v3.forward", "model")]
    assert [(n.name, n.beside) for n in merge.nodes] == [("Method1LlamaModel_v3.forward", "")]
