"""Biased image sets: exact labels, splits, and every likely damage of files."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from interp_unlearn._core import ConfigError, DataError, FileFormatError
from interp_unlearn.benchmarks import (
    QUARTERS,
    Preprocess,
    ShapesConfig,
    coloured_shapes,
    image_task,
    load_bar,
    load_images,
    load_nico,
    load_waterbirds,
    resplit,
)
from interp_unlearn.benchmarks._images import take

SMALL = ShapesConfig(per_class=40, test_per_class=8, never=6, size=16)


@pytest.mark.parametrize(("aligned", "conflicting"), [(0.95, 2), (0.995, 1), (0.5, 20), (1.0, 0)])
def test_shapes_have_exactly_the_share_that_was_asked_for(aligned, conflicting):
    data = coloured_shapes(ShapesConfig(aligned=aligned, per_class=40, test_per_class=8, never=0, size=16))
    for c in range(len(data.classes)):
        own = data.labels == c
        assert int((own & data.train & ~data.aligned).sum()) == conflicting
        assert int((own & ~data.train & data.aligned).sum()) == 4
        assert int((own & ~data.train & ~data.aligned).sum()) == 4
    assert torch.equal(data.aligned, data.setting == data.labels)


def test_shapes_are_the_same_for_a_seed_and_their_masks_lie_on_the_object():
    one, two = coloured_shapes(SMALL), coloured_shapes(SMALL)
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, coloured_shapes(ShapesConfig(**{**SMALL.to_dict(), "seed": 1})).images)
    grey = (one.images.float().max(1).values - one.images.float().min(1).values)[one.labels >= 0]
    mask = one.mask[one.labels >= 0]
    assert float(grey[mask].mean()) < 0.5 * float(grey[~mask].mean())  # objects are grey, backgrounds coloured


def test_wrong_settings_say_the_fix():
    with pytest.raises(ConfigError, match=r"0\.995 or 0\.95"):
        ShapesConfig(aligned=0.0)
    with pytest.raises(ConfigError, match="per_class"):
        ShapesConfig(per_class=1)
    with pytest.raises(ConfigError, match="coloured-shapes"):
        load_images("colored-shapes")
    with pytest.raises(ConfigError, match="aligned"):
        load_images("coloured-shapes", alligned=0.9)
    with pytest.raises(ConfigError, match="data_dir"):
        load_images("bar")


def test_task_has_disjoint_sets_and_four_quarters():
    task = image_task(coloured_shapes(SMALL), "ring")
    ids = [set(s.ids.tolist()) for s in task.item_sets()]
    assert sum(map(len, ids)) == len(set().union(*ids)) == len(task.data)
    assert set(task.neighbours.groups["quarter"]) == set(QUARTERS[2:])
    assert set(task.forget_heldout.groups["quarter"]) == set(QUARTERS[:2])
    assert (task.never_known.labels == task.label).all()
    again = image_task(coloured_shapes(SMALL), "ring")
    assert task.to_json() == again.to_json()
    other = image_task(coloured_shapes(ShapesConfig(**{**SMALL.to_dict(), "noise": 0.0})), "ring")
    assert task.to_json() != other.to_json()


def test_a_class_that_is_absent_is_named_with_the_nearest():
    data = coloured_shapes(SMALL)
    with pytest.raises(DataError, match=r"no class .circel.*circle"):
        image_task(data, "circel")
    object.__setattr__(data, "train", data.train & (data.labels != 0))
    with pytest.raises(DataError, match="nothing to forget"):
        image_task(data, "circle")


def test_preprocessing_scales_and_normalises():
    images = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    pre = Preprocess((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 16)
    assert pre(pre.resized(images)).shape == (1, 3, 16, 16)
    assert float(pre(images).mean()) == pytest.approx(2.0)
    with pytest.raises(ConfigError):
        Preprocess(std=(0.0, 1.0, 1.0))


def test_resplit_follows_the_recipe():
    data = coloured_shapes(ShapesConfig(aligned=0.5, per_class=80, test_per_class=4, never=4, size=16))
    object.__setattr__(data, "aligned", torch.arange(len(data)) % 4 != 0)
    split = resplit(data, 0.95, seed=3)
    for c in range(5):
        own, before = split.labels == c, data.labels == c
        a, n = int((before & data.aligned).sum()), int((before & ~data.aligned).sum())
        moved = int((own & split.train & ~split.aligned).sum())
        left = int((own & split.train & split.aligned).sum())
        assert moved == max(1, round(left * 0.05 / 0.95))
        assert left == a - (n - moved)
        assert int((own & ~split.train & split.aligned).sum()) == int((own & ~split.train & ~split.aligned).sum())
    assert torch.equal(resplit(data, 0.95, seed=3).train, split.train)
    assert int((split.labels < 0).sum()) == 4


def test_resplit_leaves_enough_to_train_on_where_conflicting_images_are_many():
    data = coloured_shapes(ShapesConfig(aligned=0.5, per_class=90, test_per_class=4, never=0, size=16))
    for aligned, train, conflicting in ((0.95, 16, 1), (0.5, 30, 15), (1.0, 15, 0)):
        few = take(data, data.train.nonzero()[:, 0].numpy())
        split = resplit(replace(few, aligned=torch.arange(450) % 3 == 0), aligned)
        for c in range(5):
            own = split.labels == c
            assert int((own & split.train).sum()) == train
            assert int((own & split.train & ~split.aligned).sum()) == conflicting
            assert int((own & ~split.train & split.aligned).sum()) == 15


def test_a_share_that_a_small_set_cannot_have_is_refused(tmp_path):
    data = coloured_shapes(ShapesConfig(aligned=0.5, per_class=4, test_per_class=4, never=0, size=16))
    with pytest.raises(DataError, match=r"in place of 0\.95; set aligned = "):
        resplit(data, 0.95)


def test_bar_splits_as_its_readme_says(need_data):
    data = load_bar(need_data("bar64", "train.npz").parent, aligned=0.995)
    train = data.train
    assert int(train.sum()) == 1301
    assert int((train & ~data.aligned).sum()) == 7
    assert int((~train).sum()) == 1294
    assert int((~train & data.aligned).sum()) == 647


def _bar_npz(folder, n=12, size=8, **other):
    for split, m in (("train", n), ("test", n // 2)):
        labels = np.repeat(np.arange(6), m)
        images = np.random.default_rng(0).integers(0, 255, (len(labels), size, size, 3), dtype=np.uint8)
        arrays = {"images": images, "labels": labels, "filenames": np.array([f"i_{i}.jpg" for i in range(len(labels))])}
        np.savez(folder / f"{split}.npz", **{**arrays, **other})


def test_images_of_unknown_setting_are_in_no_quarter(tmp_path):
    _bar_npz(tmp_path)
    task = image_task(load_bar(tmp_path), "climbing")
    bias, quarter = task.neighbours.groups["bias"], task.neighbours.groups["quarter"]
    assert {q for b, q in zip(bias, quarter, strict=True) if b == "conflicting"} == {"-"}
    assert {q for b, q in zip(bias, quarter, strict=True) if b == "aligned"} == {"retained, other setting"}
    assert "-" not in task.forget_heldout.groups["quarter"]
    from interp_unlearn.probes._image_probes import _placeless, labels_of_probes

    _, groups, counts = labels_of_probes(task)
    assert "no image is left for: retained, target's setting" in _placeless(groups[counts])


def test_pickled_truncated_and_foreign_npz_are_refused(tmp_path):
    _bar_npz(tmp_path)
    assert len(load_bar(tmp_path).classes) == 6
    whole = (tmp_path / "train.npz").read_bytes()
    (tmp_path / "train.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileFormatError, match="not a whole"):
        load_bar(tmp_path)
    _bar_npz(tmp_path, filenames=np.array([{"a": 1}], dtype=object))
    with pytest.raises(FileFormatError, match="pickled objects"):
        load_bar(tmp_path)
    np.savez(tmp_path / "train.npz", images=np.zeros(3))
    with pytest.raises(FileFormatError, match="no array"):
        load_bar(tmp_path)


def _picture(path, size=(10, 12), colour=(200, 10, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_bar_from_its_published_folders(tmp_path):
    for split, n in (("train", 5), ("test", 3)):
        for action in ("climbing", "diving", "fishing", "pole vaulting", "racing", "throwing"):
            for i in range(n):
                _picture(tmp_path / split / f"{action}_{i}.jpg", size=(10 + i, 12))
    data = load_bar(tmp_path, size=8, aligned=0.75)
    assert data.images.shape[1:] == (3, 8, 8)
    assert int(data.train.sum()) > 0
    (tmp_path / "train" / "racing_0.jpg").write_bytes(b"no image")
    with pytest.raises(FileFormatError, match=r"racing_0\.jpg is not a whole image"):
        load_bar(tmp_path, size=8, aligned=0.75)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size = 0"),
        ({"size": -4}, "size = -4"),
        ({"size": "64"}, "size = '64'"),
        ({"seed": "a"}, "seed = 'a'"),
        ({"aligned": "0.9"}, "aligned = '0.9'"),
        ({"pairs": ["dog", "cat"]}, "usual contexts"),
    ],
)
def test_options_of_another_type_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        load_images("nico++", tmp_path, **{"pairs": {"dog": "grass", "cat": "rock"}, **options})


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        load_nico(tmp_path / "nowhere", pairs={"dog": "grass", "cat": "rock"})


@pytest.mark.parametrize(
    "change", [lambda n: n - 1, lambda n: n + 1, lambda n: n + 0.7, lambda n: np.eye(6, dtype=int)[n]]
)
def test_labels_that_are_no_actions_are_refused(tmp_path, change):
    _bar_npz(tmp_path)
    labels = np.load(tmp_path / "train.npz")["labels"]
    _bar_npz(tmp_path, labels=change(labels))
    with pytest.raises(FileFormatError, match="as a number 0…5"):
        load_bar(tmp_path)


def test_mixed_sizes_are_named(tmp_path):
    from interp_unlearn.benchmarks._image_files import image_files, read_images

    _picture(tmp_path / "a.png", (8, 8))
    _picture(tmp_path / "b.png", (9, 8))
    with pytest.raises(DataError, match=r"a.png is 8×8, b.png is 9×8"):
        read_images(image_files(tmp_path), None)
    assert read_images(image_files(tmp_path), 8).shape == (2, 3, 8, 8)


def test_waterbirds_from_its_published_folder(tmp_path):
    rows = []
    for i, (y, place, split) in enumerate((y, p, s) for s in (0, 1, 2) for y in (0, 1) for p in (0, 1) for _ in "ab"):
        _picture(tmp_path / f"birds/{i}.jpg")
        rows.append({"img_id": i, "img_filename": f"birds/{i}.jpg", "y": y, "split": split, "place": place})
    with (tmp_path / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    data = load_waterbirds(tmp_path, size=8)
    assert len(data) == 16
    assert int(data.train.sum()) == 8
    assert torch.equal(data.aligned, data.setting == data.labels)
    assert len(load_waterbirds(tmp_path, size=8, aligned=0.75)) <= 24
    (tmp_path / "metadata.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FileFormatError, match="not the table of Waterbirds"):
        load_waterbirds(tmp_path)


def test_nico_from_its_published_folder(tmp_path):
    for context in ("grass", "rock"):
        for name in ("dog", "cat"):
            for i in range(6 if (context, name) in (("grass", "dog"), ("rock", "cat")) else 3):
                _picture(tmp_path / context / name / f"{i}.jpg")
    data = load_nico(tmp_path, pairs={"dog": "grass", "cat": "rock"}, size=8, aligned=0.8)
    assert data.classes == ("dog", "cat")
    assert int((data.train & ~data.aligned).sum()) == 2
    with pytest.raises(DataError, match=r"no context .gras.*grass"):
        load_nico(tmp_path, pairs={"dog": "gras", "cat": "rock"}, size=8)
    with pytest.raises(ConfigError, match="usual contexts"):
        load_nico(tmp_path, pairs={"dog": "grass"}, size=8)
