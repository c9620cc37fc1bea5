"""What a node of a cluster has to see."""

import pytest

from studies import nodes
from studies.plan import IMAGES
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
            assert nodes.missing(*words, {IMAGES: images_digest(tree)}) is None
            other = {IMAGES: images_digest(there if tree is here else here)}
            text = nodes.missing(*words, other)
            assert text is not None and text.startswith("has other training images in ")


@pytest.mark.parametrize("field", ["backbone", "scheme"])
def test_a_node_with_another_file_of_the_users_says_so(tmp_path, field):
    """One that looks at first, and one that joins later: neither trains something else."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from trainers.schemes import Scheme\nEXITS = 4\n"
        "SCHEME = Scheme('the mean', lambda a: [[1 / len(a)] * len(a)], lambda a: [[1]] * len(a))\n"
    )
    config = TrialConfig(**{field: str(path)})
    digests = {name: digest for name, digest in config.digests.items() if digest is not None}
    assert list(digests) == [field]
    with nodes.marked(tmp_path) as mark:
        words = str(mark), config.model_dump_json(), None, digests
        assert nodes.missing(*words) is None
        nodes.check_files(config, digests)
        nodes.check_files(config, None)
        path.write_text(path.read_text() + "# older\n")
        said = f"has another {field} file '{path}' than the study was made with: copy that one"
        text = nodes.missing(*words)
        assert text is not None and text.startswith(said) and "\n" not in text
        with pytest.raises(InputError, match=f"node .* has another {field} file"):
            nodes.check_files(config, digests)


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
