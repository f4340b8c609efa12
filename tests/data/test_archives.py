import sys
import tarfile

import numpy as np
import pytest

from nt_residual import data

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
ARCHIVE, FOLDER = "cifar-10-binary.tar.gz", "cifar-10-batches-bin"


def members(files, **replaced):
    """What is in the archive, some of it replaced: by bytes, a kind of link, or nothing."""
    parts = files.parts["cifar10"] | replaced
    return [(f"{FOLDER}/{name}", each) for name, each in parts.items() if each is not None]


def load(files, name="cifar10"):
    return data.load(name, root=files.root)


@pytest.mark.parametrize("name", [f"{LABELS}.gz", ARCHIVE])
def test_a_file_with_another_sum_is_refused_by_name(name, files):
    path = files.root / name
    dataset = "cifar10" if name == ARCHIVE else "mnist"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(
        ValueError, match=rf"{name} must have the SHA-256 sum .* truncated .* get {name} from http"
    ):
        load(files, dataset)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match=f"{name} must have the SHA-256 sum .* altered"):
        load(files, dataset)


def test_a_file_under_the_name_of_another_is_recognized(files):
    (files.root / f"{IMAGES}.gz").write_bytes((files.root / f"{LABELS}.gz").read_bytes())
    with pytest.raises(ValueError, match=f"{IMAGES}.gz .* it is {LABELS}.gz under another name"):
        load(files, "mnist")


def test_the_cache_is_held_to_the_same_sums(files, monkeypatch):
    monkeypatch.setenv("NT_RESIDUAL_DATA", str(files.root))
    assert len(data.load("cifar10").x_train) == 60
    path = files.root / ARCHIVE
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ValueError, match=f"{ARCHIVE} must have the SHA-256 sum"):
        data.load("cifar10")


def test_what_cannot_be_unpacked_is_refused_by_name(files, packers):
    packed = packers.gzipped(files.parts["mnist"][LABELS])
    for broken in (packed[:-9], b"not gzip", packed[:-8] + bytes(8)):
        files.publish("mnist", f"{LABELS}.gz", broken)
        with pytest.raises(ValueError, match=f"{LABELS}.gz cannot be unpacked: .* Delete it"):
            load(files, "mnist")
    packed = packers.tarred(members(files))
    for broken in (packed[: len(packed) // 2], b"not gzip", packers.gzipped(b"not tar" * 200)):
        files.publish("cifar10", ARCHIVE, broken)
        with pytest.raises(ValueError, match=f"{ARCHIVE} cannot be unpacked"):
            load(files)


def test_nothing_is_taken_from_or_written_to_outside_of_the_archive(files, packers, tmp_path):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(files.parts["cifar10"]["test_batch.bin"])
    before = sorted(tmp_path.rglob("*"))
    escaping = [("../evil.bin", b"evil"), (str(tmp_path / "evil.bin"), b"evil")]
    files.publish("cifar10", ARCHIVE, packers.tarred([*escaping, *members(files)]))
    assert len(load(files).x_train) == 60
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        for target in (str(secret), "data_batch_1.bin", f"{FOLDER}/data_batch_1.bin"):
            linked = members(files, **{"test_batch.bin": (kind, target)})
            files.publish("cifar10", ARCHIVE, packers.tarred(linked))
            with pytest.raises(ValueError, match=r"test_batch.bin in .* must be one file, got"):
                load(files)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_member_that_is_missing_doubled_or_elsewhere_is_refused(files, packers):
    there = members(files)
    doubled = [*there, there[0]]
    files.publish("cifar10", ARCHIVE, packers.tarred(doubled))
    with pytest.raises(ValueError, match=r"data_batch_1.bin in .* must be one file"):
        load(files)
    moved = [(f"../{FOLDER}/data_batch_1.bin", there[0][1]), *there[1:]]
    for lacking in (there[1:], moved):
        files.publish("cifar10", ARCHIVE, packers.tarred(lacking))
        with pytest.raises(ValueError, match=f"must hold data_batch_1.bin in the folder {FOLDER}"):
            load(files)


def test_a_part_of_another_size_is_refused_by_name(files, packers):
    part = files.parts["cifar10"]["data_batch_2.bin"]
    for wrong, got in ((part[:-1], len(part) - 1), (part + b"\0", f"more than {len(part)}")):
        changed = members(files, **{"data_batch_2.bin": wrong})
        files.publish("cifar10", ARCHIVE, packers.tarred(changed))
        with pytest.raises(
            ValueError, match=rf"data_batch_2.bin in .* must have {len(part)} bytes, got {got}:"
        ):
            load(files)
    part = files.parts["mnist"][LABELS]
    files.publish("mnist", f"{LABELS}.gz", packers.gzipped(part + bytes(10**6)))
    with pytest.raises(ValueError, match=rf"{LABELS} in .* must have {len(part)} bytes, got more"):
        load(files, "mnist")


def test_unpacked_files_are_checked_by_size_and_content(files):
    files.unpack("mnist")
    files.unpack("cifar10")
    for name, dataset in ((IMAGES, "mnist"), ("test_batch.bin", "cifar10")):
        whole = (files.root / name).read_bytes()
        # A whole number of records less is a truncation all the same.
        (files.root / name).write_bytes(whole[:-3073])
        with pytest.raises(ValueError, match=rf"{name} must have {len(whole)} bytes, got"):
            load(files, dataset)
        (files.root / name).write_bytes(whole)

    def altered(dataset, name, position, value):
        content = bytearray(files.parts[dataset][name])
        content[position] = value
        (files.root / name).write_bytes(content)
        with pytest.raises(ValueError, match=name) as caught:
            load(files, dataset)
        (files.root / name).write_bytes(files.parts[dataset][name])
        return str(caught.value)

    assert "magic number 00 00 08 03 and 3 lengths, got 00 00 08 01" in altered(
        "mnist", IMAGES, 3, 1
    )
    assert "must hold an array of shape (61, 28, 28)" in altered("mnist", IMAGES, 7, 61)
    assert "must lie in [0, 10), got 0 to 10" in altered("mnist", LABELS, 8, 10)
    assert "must lie in [0, 10), got 0 to 255" in altered("cifar10", "test_batch.bin", 0, 255)


def test_images_of_another_shape_are_refused(files, packers):
    images = np.frombuffer(files.parts["mnist"][IMAGES], np.uint8, offset=16)
    files.publish("mnist", f"{IMAGES}.gz", packers.gzipped(packers.idx(images.reshape(30, 56, 28))))
    with pytest.raises(ValueError, match=r"must hold an array of shape \(60, 28, 28\), .*\(30, 56"):
        load(files, "mnist")


@pytest.mark.parametrize(("byte", "classes"), [(0, 20), (1, 100)])
def test_both_labels_of_cifar100_are_checked(byte, classes, files):
    files.unpack("cifar100")
    content = bytearray(files.parts["cifar100"]["train.bin"])
    content[byte] = classes
    (files.root / "train.bin").write_bytes(content)
    with pytest.raises(ValueError, match=rf"labels of train.bin must lie in \[0, {classes}\)"):
        load(files, "cifar100")


def test_a_missing_file_is_named_with_its_address(files):
    (files.root / f"{LABELS}.gz").unlink()
    with pytest.raises(
        FileNotFoundError,
        match=rf"root must be a folder that holds {LABELS}.gz or, .* {LABELS}; .* has neither. Get "
        rf"{LABELS}.gz from https://",
    ):
        load(files, "mnist")
    with pytest.raises(FileNotFoundError, match="root must be a folder"):
        data.load("cifar10", root=files.root / ARCHIVE)


def test_files_of_ones_own_need_neither_pooch_nor_scikit_learn(files, monkeypatch):
    for name in ("pooch", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("NT_RESIDUAL_DATA", raising=False)
    assert len(load(files).x_train) == 60
    with pytest.raises(ImportError, match=r"downloads need pooch, .* or pass root="):
        data.load("cifar10")
    with pytest.raises(ImportError, match="stratified subsets need scikit-learn, which is not"):
        data.load("cifar10", 20, root=files.root)
    with pytest.raises(ImportError, match="the digits come with scikit-learn, which is not"):
        data.load("digits")
