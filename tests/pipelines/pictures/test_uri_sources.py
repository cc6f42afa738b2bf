"""Pictures behind a URI: as those of a folder, and told in words where they cannot be had."""

import contextlib
import json
from dataclasses import replace

import boto3
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ipt.photos.images import ImageError
from pipelines.common.params import Folder, Prepare, Source
from pipelines.data.rows import rows_of
from pipelines.pictures import sources
from pipelines.pictures.dead_leaves import draw_dead_leaves
from pipelines.pictures.sources import SourceError, list_pictures, read_picture
from pipelines.prepare import prepare

SETTINGS = Prepare(
    sources=(), tile=32, stride=32, val_share=0.2, flat_std=3.0, max_flat_share=0.05, duplicate_bits=3,
    max_bad_share=0.5, row_group_rows=8,
)  # fmt: skip


@pytest.fixture
def photos(tmp_path):
    """A folder of good and bad pictures, one of each below another folder, and what is no picture."""
    root = tmp_path / "my photos"
    (root / "deeper").mkdir(parents=True)
    for index in range(5):
        image = np.rint(draw_dead_leaves(np.random.default_rng((7, index)), 64) * 255).astype(np.uint8)
        Image.fromarray(image).save(root / f"{index} #1.png" if index else root / "deeper/0%41.jpg")
    whole = (root / "1 #1.png").read_bytes()
    (root / "deeper/cut.PNG").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (31, 400)).save(root / "thin.bmp")
    (root / "notes.txt").write_text("no picture")
    (root / ".hidden.png").write_text("no picture")
    return root


@pytest.fixture
def bucket(s3, photos, tmp_path):
    """The URI of a copy of that folder in an object store."""
    uri = f"{s3.uri}/{tmp_path.name}/my photos"
    client = boto3.client("s3")
    for path in photos.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "bucket", f"{tmp_path.name}/my photos/{path.relative_to(photos)}")
    return uri


def source(path, *scales):
    return Source(Folder(str(path), scales or (1.0,)), None, None)


def tiles(target, label):
    """Tile by name without its source's, from both splits: which split a picture is in hangs on the source's name."""
    found = {}
    for split in ("train", "val"):
        for row in rows_of(pq.read_table(target / f"{split}.parquet")):
            found[row["image_id"].removeprefix(label)] = row["clean"].tobytes()
    return found


def test_it_gives_what_a_folder_gives(tmp_path, photos, bucket):
    reports = {}
    for label in (str(photos), bucket):
        settings = replace(SETTINGS, sources=(source(label, 1.0, 0.5),))
        reports[label] = prepare(settings, 0, tmp_path / label.partition(":")[0].rpartition("/")[2])
    here, there = tmp_path / "my photos", tmp_path / "s3"
    assert tiles(there, bucket) == tiles(tmp_path / "my photos", str(photos))
    assert len(tiles(there, bucket)) > 20
    assert reports[bucket]["quarantined"] == reports[str(photos)]["quarantined"] == 2
    assert reports[bucket]["tiles"] == reports[str(photos)]["tiles"]
    told = (there / "quarantine.csv").read_text()
    assert told.replace(bucket, str(photos)) == (here / "quarantine.csv").read_text()
    assert f"{bucket}/deeper/cut.PNG: cannot be read as an image: " in told


def test_pictures_are_listed_by_name_and_a_last_slash_is_none(bucket):
    pictures = list_pictures(source(f"{bucket}/"), 0)
    names = [picture.name for picture in pictures]
    assert names == sorted(names)
    assert len(names) == 7
    assert [picture.path for picture in pictures] == [f"{bucket}/{name}" for name in names]


def test_a_bucket_a_folder_and_a_kind_of_store_that_are_not_there(s3, bucket):
    with pytest.raises(
        SourceError, match=r"folder 's3://bucket/none': there is no such folder: .*; look for a slip in its"
    ):
        list_pictures(source("s3://bucket/none"), 0)
    with pytest.raises(SourceError, match=r"'s3://no-such-bucket/photos': there is no such folder: "):
        list_pictures(source("s3://no-such-bucket/photos"), 0)
    with pytest.raises(SourceError, match=r"folder 'ftp://host/photos': cannot be opened: .*; expected s3://BUCKET"):
        list_pictures(source("ftp://host/photos"), 0)
    with pytest.raises(SourceError, match=r"folder 's3://': expected s3://BUCKET"):
        list_pictures(source("s3://"), 0)
    with pytest.raises(SourceError, match=r"expected no '\?'; set options of a store in the environment"):
        list_pictures(source("s3://bucket/photos?region=x"), 0)
    with pytest.raises(SourceError, match=r"there is no such folder: "):
        list_pictures(source(f"{bucket}/thin.bmp"), 0)


def test_a_secret_in_a_uri_is_refused_and_not_repeated():
    with pytest.raises(SourceError, match="a folder with a password in its URI") as told:
        list_pictures(source("s3://somebody:secret@bucket/photos"), 0)
    assert "secret@" not in str(told.value)


@pytest.fixture
def as_reader(s3, monkeypatch):
    """From a call on, be somebody who may do what its statements of policy say, and nothing else."""
    from moto.core import enable_iam_authentication

    def become(*statements: dict) -> None:
        iam = boto3.client("iam")
        name = f"reader of {len(iam.list_users()['Users'])}".replace(" ", "-")
        iam.create_user(UserName=name)
        if statements:
            policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
            iam.put_user_policy(UserName=name, PolicyName="reads", PolicyDocument=policy)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        stack.enter_context(enable_iam_authentication())
        sources._opened.cache_clear()

    with contextlib.ExitStack() as stack:
        yield become
    sources._opened.cache_clear()


def test_who_may_not_list_a_bucket_is_told_so(bucket, as_reader):
    as_reader()
    with pytest.raises(SourceError, match=r"photos': not permitted: .*; set AWS_ACCESS_KEY_ID and .* on all nodes"):
        list_pictures(source(bucket), 0)


def test_a_picture_that_may_not_be_read_is_a_bad_one(tmp_path, bucket, as_reader):
    secret = f"arn:aws:s3:::{bucket.removeprefix('s3://')}/2 #1.png"
    as_reader(
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:GetObject", "Resource": secret},
    )
    report = prepare(replace(SETTINGS, sources=(source(bucket),)), 0, tmp_path / "clean")
    assert report["quarantined"] == 3
    (told,) = [line for line in (tmp_path / "clean/quarantine.csv").read_text().splitlines() if "2 #1" in line]
    assert "2 #1.png: cannot be read: " in told


def test_a_picture_that_is_gone_is_bad_and_one_whose_storage_is_away_is_not(bucket, monkeypatch):
    picture = list_pictures(source(bucket), 0)[-1]
    with pytest.raises(ImageError, match=r"none\.png: cannot be read: "):
        read_picture(replace(picture, name="none.png", path=f"{bucket}/none.png"))

    class Away:
        def open_input_file(self, path):
            raise OSError("no answer")

    monkeypatch.setattr(sources, "_opened", lambda place: (Away(), "bucket"))
    with pytest.raises(OSError, match=r"thin\.bmp: no answer; run the same command again when its storage answers"):
        read_picture(picture)


def test_a_file_uri_is_a_folder_that_all_nodes_see(photos):
    pictures = list_pictures(source(photos.as_uri()), 0)
    assert [each.name for each in pictures] == [each.name for each in list_pictures(source(photos), 0)]
    here = {each.name: each for each in list_pictures(source(photos), 0)}
    (last,) = [each for each in pictures if each.name == "2 #1.png"]
    np.testing.assert_array_equal(read_picture(last), read_picture(here[last.name]))
