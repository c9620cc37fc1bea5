"""What a node of a cluster has to see."""

import pytest

from studies import nodes
from trainers.catalog import InputError
from trainers.config import TrialConfig
from trainers.folders import images_digest

DIGITS = TrialConfig(dataset="digits").model_dump_json()


def test_a_node_that_sees_all_lacks_nothing(tmp_path):
    with nodes.marked(tmp_path) as mark:
        assert nodes.missing(str(mark), DIGITS, None, None) is None
    assert not list(tmp_path.iterdir())


def test_a_node_with_a_folder_of_its_own_is_named(tmp_path):
    (tmp_path / "other").mkdir()
    text = nodes.missing(str(tmp_path / "other" / ".node-check-1"), DIGITS, None, None)
    assert text is not None and "does not see the checkpoint folder" in text and "\n" not in text


def test_a_node_without_the_data_is_named(tmp_path):
    config = TrialConfig(dataset="cifar100").model_dump_json()
    with nodes.marked(tmp_path) as mark:
        text = nodes.missing(str(mark), config, str(tmp_path / "none"), None)
    assert text is not None and text.startswith("lacks the data: ") and "\n" not in text


def test_a_node_with_other_images_says_so(tmp_path, class_folders):
    here, there = class_folders("here"), class_folders("there", train=5)
    (tmp_path / "marks").mkdir()
    with nodes.marked(tmp_path / "marks") as mark:
        for tree in (here, there):
            config = TrialConfig(dataset=str(tree), classes=3, image_size=8, validation=0.3)
            words = str(mark), config.model_dump_json(), None
            assert nodes.missing(*words, images_digest(tree)) is None
            text = nodes.missing(*words, images_digest(there if tree is here else here))
            assert text is not None and text.startswith("has other training images in ")


def test_a_folder_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot be written"), nodes.marked(tmp_path / "none"):
        pass


def test_a_backbone_that_only_the_driver_has_is_named(tmp_path):
    config = DIGITS.replace('"cnn4"', '"/none/of/mine.py"')
    assert config != DIGITS
    with nodes.marked(tmp_path) as mark:
        text = nodes.missing(str(mark), config, None, None)
    assert text is not None and text.startswith("cannot read the config: ") and "\n" not in text


def test_a_node_that_joins_later_without_the_folder_says_so(tmp_path):
    nodes.check_shared(tmp_path)
    with pytest.raises(InputError, match="does not see the checkpoint folder"):
        nodes.check_shared(tmp_path / "none")
